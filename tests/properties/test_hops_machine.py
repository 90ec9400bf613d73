"""A payer, a hub and a payee, and locks between them, under any order of messages, losses, crashes, lies and expiries.

The hub here does with the machines of core what a hub's node does with them, and in its order. What must hold, holds
after each step:

- cover: what a payee holds is within the deposit, and it could file it as it stands;
- sums: no voucher's amount ever falls, and a payer is ahead of its payee by one voucher at most;
- solvency: whatever the last payee does next, the hub can get as much from its payer as it has to give;
- a message that is refused changes nothing;
- resync: once links hold, both books of a channel agree, every lock is gone, and each has what it is owed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core.channel import ChannelParams, Domain, Lock
from penstock.core.codec import decode, encode
from penstock.core.errors import OutOfFunds, PenstockError
from penstock.core.hops import (
    IN_ROWS,
    NO_VOUCHER,
    OUT_ROWS,
    Incoming,
    InRow,
    Outgoing,
    OutRow,
    Place,
    decode_in,
    decode_in_lock,
    decode_out,
    decode_out_lock,
    filing_of,
)
from penstock.core.identity import Address, Key
from penstock.core.messages import Add, Ask, Change, Entered, Hop, Promise, Settle, Taken, Told
from penstock.core.ticks import TickChain

PAYER, HUB, PAYEE = (Key(bytes((n,)) * 32) for n in (1, 2, 3))
DOMAIN = Domain(31337, Address(b"\xcc" * 20), Address(b"\xee" * 20))
TICK, FEE, TICKS = 100, 3, 12  # token units, of each tick the hub's, ticks of a lock
HOLDING, ONWARD = 9, 4  # what the payer pays for holding a lock, and what the hub passes on of it
LIFE, DELTA = 100, 10_000  # seconds: the incoming lock outlives all that happens here
LATE = 2**40


class Channel:
    """One channel: its payer's books and its payee's, a journal for each, and the link between them."""

    def __init__(self, payer: Key, payee: Key, counter: int, deposit: int) -> None:
        ends = (payer.address, payee.address)
        self.params = ChannelParams(DOMAIN, *ends, *ends, 3_600, False, counter)
        self.payer, self.payee, self.deposit = payer, payee, deposit
        self.out_rows: dict[bytes, bytes] = {}
        self.in_rows: dict[bytes, bytes] = {}
        self.up: deque[bytes] = deque()  # to the payee
        self.down: deque[bytes] = deque()
        self.sent = 0
        self.payer_wakes()
        self.payee_wakes()

    def payer_wakes(self) -> None:
        row = self.out_rows.get(OUT_ROWS + self.params.id)
        held = decode_out(row) if row else OutRow(NO_VOUCHER)
        locks = _locks(self.out_rows, OUT_ROWS + self.params.id, decode_out_lock)
        self.out = Outgoing(self.params, self.deposit, self.payer, held, locks)

    def payee_wakes(self) -> None:
        row = self.in_rows.get(IN_ROWS + self.params.id)
        held = decode_in(row) if row else InRow(NO_VOUCHER)
        locks = _locks(self.in_rows, IN_ROWS + self.params.id, decode_in_lock)
        self.incoming = Incoming(self.params, self.deposit, self.payee, held, locks)

    def keep_out(self, rows: Any) -> None:
        _write(self.out_rows, rows)

    def keep_in(self, rows: Any) -> None:
        _write(self.in_rows, rows)

    def tell(self, number: int) -> None:
        held = self.incoming.locks.get(number)
        told = held.told(Place(self.params.id, number)) if held else None
        if told is not None:
            self.down.append(encode(told))

    def relink(self) -> None:
        """What was on its way is lost, and the payer enters again."""
        self.up.clear()
        self.down.clear()
        self.sent = 0
        self.down.append(encode(Entered(self.params.id, self.incoming.row.voucher.nonce)))
        for number in sorted(self.incoming.locks):
            self.tell(number)

    def promise(self) -> bool:
        made = self.out.promise()
        if made is not None:
            self.keep_out(made[0])
        waiting = self.out.waiting
        if waiting is None or waiting.voucher.nonce == self.sent:
            return False
        self.sent = waiting.voucher.nonce
        self.up.append(encode(waiting))
        return True

    @property
    def state(self) -> Any:
        out = self.out
        return (
            out.row, dict(out.locks), dict(out.leaving), out.free, out.idle,
            self.incoming.row, dict(self.incoming.locks),
            dict(self.out_rows), dict(self.in_rows), tuple(self.up), tuple(self.down),
        )  # fmt: skip


def _locks(rows: dict[bytes, bytes], whole: bytes, read: Callable[[bytes], Any]) -> dict[int, Any]:
    keys = sorted(key for key in rows if key.startswith(whole) and len(key) == len(whole) + 8)
    return {int.from_bytes(key[len(whole) :], "big"): read(rows[key]) for key in keys}


def _write(books: dict[bytes, bytes], rows: Any) -> None:
    for key, value in rows:
        if value is None:
            books.pop(key, None)
        else:
            books[key] = value


class Sale(NamedTuple):
    """A session's chain, its lock's number in the payer's channel, and when the last lock expires (seconds)."""

    chain: TickChain
    number: int
    expiry: int


class Hops(RuleBasedStateMachine):
    @initialize(deposits=st.tuples(st.sampled_from([20_000, 3_000, 1_300]), st.sampled_from([20_000, 1_260])))
    def begin(self, deposits: tuple[int, int]) -> None:
        self.first, self.last = Channel(PAYER, HUB, 1, deposits[0]), Channel(HUB, PAYEE, 2, deposits[1])
        self.now = 1_000
        self.sales: list[Sale] = []
        self.placed: set[int] = set()  # numbers in the first channel
        self.known: dict[bytes, int] = {}  # ticks that the payee has of a root
        self.pairs: dict[int, int] = {}  # the hub's, number onward to number from
        self.amounts = [0, 0, 0, 0]
        self.rests = self.bills = 0
        self.lapsed = False

    # ---- the hub

    def hub_changed(self, changes: tuple[Change, ...]) -> None:
        incoming, onward = self.first.incoming, self.last.out
        for change in changes:
            match change:
                case Add(number=number, lock=lock, onward=way):
                    try:
                        lock = Lock(lock.root, way[0].tick_value, lock.ticks, way[0].expiry)
                        out = onward.add(lock, way[0].holding, way[1:], Place(self.first.params.id, number))
                    except OutOfFunds as error:
                        self.first.keep_in(incoming.done(number, 0, error.line()))
                        self.first.tell(number)
                        continue
                    self.pairs[out] = number
                    self.first.keep_in(incoming.forward(number, Place(self.last.params.id, out)))
                case Ask(number=number, count=count, preimage=preimage, rest=rest):
                    held = incoming.locks.get(number)
                    if held is not None and held.out is not None:
                        self.first.keep_in(incoming.prove(number, count, preimage))
                        onward.ask(held.out.number, count, preimage, rest)

    def hub_heard(self, told: Told) -> None:
        rows, lock = self.last.out.told(told)
        self.last.keep_out(rows)
        if lock is None:
            return
        origin = self.pairs.get(told.number)
        held = self.first.incoming.locks.get(origin) if origin is not None else None
        incoming = self.first.incoming
        if not told.done:
            if held is not None:
                assert origin is not None
                self.first.keep_in(incoming.place(origin))
                self.first.tell(origin)
            return
        if held is None or held.done is not None or self.now >= lock.lock.expiry:
            if told.total == 0:
                self.last.out.settle(told.number, 0)
            return
        assert origin is not None
        if told.count:
            self.first.keep_in(incoming.prove(origin, told.count, told.preimage))
        fee = held.lock.tick_value - lock.lock.tick_value
        self.first.keep_in(incoming.end(origin, told.total + fee * told.count))
        self.last.out.settle(told.number, told.total)

    def hub_finished(self, origin: int | None, total: int | None = None) -> None:
        held = self.first.incoming.locks.get(origin) if origin is not None else None
        if held is not None and origin is not None and held.done is None:
            self.first.keep_in(self.first.incoming.done(origin, (held.ending or 0) if total is None else total))
            self.first.tell(origin)

    def hub_resumes(self) -> None:
        incoming, onward = self.first.incoming, self.last.out
        self.pairs = {held.out.number: number for number, held in incoming.locks.items() if held.out is not None}
        for number, held in list(incoming.locks.items()):
            if held.done is not None:
                continue
            if held.out is None:
                self.hub_finished(number, 0)
            elif held.out.number not in onward.all:
                self.hub_finished(number)
            elif held.asked:
                onward.ask(held.out.number, held.count, held.preimage, held.rest)

    # ---- messages

    def take_up(self, channel: Channel, message: Any) -> None:
        took = channel.incoming.take(message, LATE)
        channel.keep_in(took.rows)
        if channel is self.first:
            self.hub_changed(took.changes)
        else:
            for change in took.changes:
                if isinstance(change, Add):
                    channel.keep_in(channel.incoming.place(change.number))
                    channel.tell(change.number)
        channel.down.append(encode(took.answer))

    def take_down(self, channel: Channel, message: Any) -> None:
        match message:
            case Entered(nonce=nonce):
                assert nonce in {channel.out.row.released, channel.out.row.voucher.nonce}, "books that do not agree"
            case Taken():
                rows, changes = channel.out.taken(message)
                channel.keep_out(rows)
                for change in changes:
                    if isinstance(change, Settle) and channel is self.last:
                        self.hub_finished(self.pairs.pop(change.number, None))
            case Told() if channel is self.last:
                self.hub_heard(message)
            case Told():
                rows, lock = channel.out.told(message)
                channel.keep_out(rows)
                if lock is not None and message.done:
                    channel.out.settle(message.number, message.total)
                elif lock is not None:
                    self.placed.add(message.number)

    def deliver_one(self, channel: Channel) -> bool:
        if channel.down:
            self.take_down(channel, decode(channel.down.popleft()))
        elif channel.up:
            self.take_up(channel, decode(channel.up.popleft()))
        else:
            return channel.promise()
        return True

    def channel(self, last: bool) -> Channel:
        return self.last if last else self.first

    @rule(last=st.booleans(), times=st.integers(1, 6))
    def deliver(self, last: bool, times: int) -> None:
        for _ in range(times):
            self.deliver_one(self.channel(last))

    @rule(times=st.sampled_from([3, 10, 100]))
    def flow(self, times: int) -> None:
        """Messages arrive on both channels, so many steps or all there are."""
        for _ in range(times):
            if sum(self.deliver_one(channel) for channel in self.channels) == 0:
                return

    @rule(last=st.booleans())
    def answer_crosses(self, last: bool) -> None:
        """A promise arrives while answers are still on their way."""
        channel = self.channel(last)
        channel.promise()
        if channel.up:
            self.take_up(channel, decode(channel.up.popleft()))

    # ---- locks and sessions

    @rule(ticks=st.integers(1, TICKS))
    @precondition(lambda self: len(self.sales) < 12)
    def lock(self, ticks: int) -> None:
        chain = TickChain(len(self.sales).to_bytes(32, "big"), ticks)
        expiry = self.now + LIFE
        lock = Lock(chain.root, TICK + FEE, ticks, expiry + DELTA)
        with suppress(OutOfFunds):
            number = self.first.out.add(lock, HOLDING, (Hop(PAYEE.address, TICK, expiry, ONWARD),))
            self.sales.append(Sale(chain, number, expiry))

    def payees_lock(self, sale: Sale) -> int | None:
        locks = self.last.incoming.locks.items()
        return next((number for number, held in locks if held.lock.root == sale.chain.root), None)

    @rule(
        ticks=st.integers(1, TICKS),
        count=st.integers(1, TICKS),
        end=st.none() | st.tuples(st.integers(0, TICK - 1), st.integers(0, 150)),
        then=st.integers(0, 8),
    )
    @precondition(lambda self: len(self.sales) < 12)
    def stream(self, ticks: int, count: int, end: tuple[int, int] | None, then: int) -> None:
        """A session from its lock to some of its ticks, where nothing is lost on the way; perhaps to its end."""
        before = len(self.sales)
        self.lock(ticks)
        self.flow(100)
        if len(self.sales) > before:
            self.show(self.sales[-1], count)
            if end is not None:
                self.finish(self.sales[-1], *end)
                self.flow(then)

    @rule(which=st.integers(0, 11), count=st.integers(1, TICKS))
    @precondition(lambda self: self.sales)
    def reveal(self, which: int, count: int) -> None:
        self.show(self.sales[which % len(self.sales)], count)

    def show(self, sale: Sale, count: int) -> None:
        """The payer of a lock that is in place shows ticks straight to the payee."""
        number = self.payees_lock(sale)
        if sale.number not in self.placed or number is None or self.now >= sale.expiry:
            return
        if self.last.incoming.locks[number].done is None:
            root = sale.chain.root
            self.known[root] = max(self.known.get(root, 0), min(count, sale.chain.ticks))

    @rule(which=st.integers(0, 11), rest=st.integers(0, TICK - 1), less=st.integers(0, 150))
    @precondition(lambda self: self.sales)
    def end(self, which: int, rest: int, less: int) -> None:
        """A session ends: the payer asks for its lock's end, where a rest is to be paid; the payee is done with it."""
        sale = self.sales[which % len(self.sales)]
        self.finish(sale, rest, less)

    def finish(self, sale: Sale, rest: int = 0, less: int = 0) -> None:
        count = self.known.get(sale.chain.root, 0)
        if rest and sale.number in self.first.out.locks:
            self.first.out.ask(sale.number, count, sale.chain.preimage(count), rest)
        number = self.payees_lock(sale)
        if number is not None and self.last.incoming.locks[number].done is None:
            incoming, bill = self.last.incoming, max(0, count * TICK - less)
            self.last.keep_in(incoming.prove(number, count, sale.chain.preimage(count)))
            self.last.keep_in(incoming.done(number, bill))
            self.bills += bill
            self.last.tell(number)

    @rule(sure=st.integers(0, 5))
    @precondition(lambda self: self.sales and self.now < 1_000 + DELTA // 2)
    def expire(self, sure: int) -> None:
        """Time passes, not often: what was locked to the payee has expired, and everybody sees it."""
        if sure:
            return
        self.now += LIFE + 1
        self.lapsed = True
        for number, held in list(self.last.incoming.locks.items()):
            if held.lock.expiry <= self.now and held.done != 0:
                self.last.keep_in(self.last.incoming.lapse(number))
                self.last.tell(number)
        for number, lock in self.last.out.all.items():
            origin = self.pairs.get(number)
            held_in = self.first.incoming.locks.get(origin) if origin is not None else None
            if lock.lock.expiry <= self.now and held_in is not None:
                self.hub_finished(origin, held_in.worth)

    # ---- faults

    @rule(last=st.booleans())
    def lose_link(self, last: bool) -> None:
        self.channel(last).relink()

    @rule(who=st.sampled_from(["payer", "hub", "payee"]))
    def crash(self, who: str) -> None:
        if who == "payer":
            self.first.payer_wakes()
        elif who == "payee":
            self.last.payee_wakes()
        else:
            self.first.payee_wakes()
            self.last.payer_wakes()
            self.hub_resumes()
        if who != "payee":
            self.first.relink()
        if who != "payer":
            self.last.relink()

    @rule(last=st.booleans(), what=st.integers(0, 9), number=st.integers(0, 14), sum_=st.integers(-1, 5_000))
    def lie(self, last: bool, what: int, number: int, sum_: int) -> None:
        """Something that is no next step, though well signed: it is refused, and nothing has changed."""
        channel = self.channel(last)
        before = channel.state
        try:
            self.say(channel, what, number, sum_)
        except PenstockError:
            assert channel.state == before, "a message that was refused has changed something"
        else:
            assert channel.state == before, "a lie was taken"

    def say(self, channel: Channel, what: int, number: int, sum_: int) -> None:
        held = channel.incoming.row.voucher
        lock = Lock(b"\x77" * 32, 50, 4, self.now + LIFE)
        last = channel.incoming.row.last

        def promise(*changes: Change, **change: Any) -> None:
            voucher = msgspec.structs.replace(held, **{"nonce": held.nonce + 1, **change})
            channel.incoming.take(
                Promise(channel.params.id, voucher, channel.payer.sign(voucher.digest(channel.params)), changes), LATE
            )

        match what:
            case 0:
                promise(Settle(number, sum_), amount=held.amount + sum_ + 1)
            case 1:
                promise(Add(last + 1, lock, max(sum_, 0), ()), amount=held.amount, nonce=held.nonce + 2)
            case 2:
                promise(Add(last, lock, 0, ()))
            case 3:
                promise(Ask(number, 0, b"", TICK + FEE))
            case 4:
                promise(Add(last + 1, lock, 0, ()), locked=held.locked + channel.deposit)
            case 5:
                promise()
            case 6:
                channel.out.taken(Taken(channel.params.id, channel.out.row.voucher.nonce + 1, bytes(65)))
            case 7:
                if channel.out.waiting is not None:
                    release = bytes(65)
                    channel.out.taken(Taken(channel.params.id, channel.out.waiting.voucher.nonce, release))
            case 8:
                channel.out.told(Told(channel.params.id, number, True, 3, b"\x55" * 32, 3, ""))
            case _:
                channel.out.told(Told(channel.params.id, number, True, 0, b"", max(1, sum_), ""))

    # ---- what must hold

    @invariant()
    def what_a_payee_holds_is_covered(self) -> None:
        for channel in self.channels:
            voucher = channel.incoming.row.voucher
            assert 0 <= voucher.amount + voucher.locked <= channel.deposit
            assert 0 <= channel.out.row.voucher.amount + channel.out.row.voucher.locked <= channel.deposit
            filing = filing_of(channel.incoming.row, channel.incoming.locks)
            assert voucher.holds(filing.locks)
            assert len(filing.proofs) == len(filing.locks)
            ahead = channel.out.row.voucher.nonce - voucher.nonce
            assert ahead in (0, 1)
            assert channel.out.row.released <= voucher.nonce

    @invariant()
    def no_sum_falls(self) -> None:
        if not self.channels:
            return
        amounts = [
            one
            for channel in self.channels
            for one in (channel.out.row.voucher.amount, channel.incoming.row.voucher.amount)
        ]
        assert all(now >= before for now, before in zip(amounts, self.amounts, strict=True))
        self.amounts = amounts

    @invariant()
    def what_is_kept_is_what_is_known(self) -> None:
        for channel in self.channels:
            out, incoming = channel.out, channel.incoming
            channel.payer_wakes()
            channel.payee_wakes()
            assert (channel.out.row, channel.out.all) == (out.row, out.all)
            assert (channel.incoming.row, channel.incoming.locks) == (incoming.row, incoming.locks)
            channel.out, channel.incoming = out, incoming

    @invariant()
    def the_hub_gets_what_it_gives(self) -> None:
        """Whether the payee files what it holds, or takes what is promised to it and files that."""
        if not self.channels:
            return
        held = self.last.incoming
        self.hub_is_solvent(held.row.voucher.amount, set(held.locks))
        waiting = self.last.out.waiting
        if waiting is not None and waiting.voucher.nonce > held.row.voucher.nonce:
            self.hub_is_solvent(waiting.voucher.amount, set(self.last.out.locks))

    def hub_is_solvent(self, amount: int, locks: set[int]) -> None:
        """The hub's balance where the payee has so much for good, and can still claim of these locks."""
        gives, gets = amount, self.first.incoming.row.voucher.amount
        every = self.last.out.all
        claimed: dict[int, int] = {}
        for number in locks:
            lock = every[number].lock
            claimed[number] = self.known.get(lock.root, 0) if self.now < lock.expiry else 0
            gives += claimed[number] * lock.tick_value
        for held in self.first.incoming.locks.values():
            if held.done is not None:
                gets += held.done
            elif held.out is not None and held.out.number in claimed:
                gets += max(claimed[held.out.number], held.count) * held.lock.tick_value
            elif held.out is not None:
                gets += held.ending or 0
        assert gets >= gives, f"the hub gets {gets} and gives {gives}"

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.first, self.last) if hasattr(self, "last") else ()

    def teardown(self) -> None:
        if not self.channels:
            return
        for channel in self.channels:
            channel.relink()
        self.settle()
        for sale in self.sales:
            self.finish(sale)
        for channel in self.channels:  # whose end was in a queue that a crash has emptied is told again
            channel.relink()
        self.settle()
        for channel in self.channels:
            assert channel.out.row.voucher == channel.incoming.row.voucher
            assert channel.out.row.released == channel.out.row.voucher.nonce
            assert channel.out.all == channel.incoming.locks == {}, "a lock is left"
            assert channel.out.idle
        got, gave = self.first.incoming.row.voucher.amount, self.last.incoming.row.voucher.amount
        if not self.lapsed:
            assert gave >= self.bills, f"the payee got {gave} of {self.bills}"
        assert got - gave >= 0

    def settle(self) -> None:
        for _ in range(2_000):
            if sum(self.deliver_one(channel) for channel in self.channels) == 0:
                return
        pytest.fail("the books do not come to rest")


TestHops = Hops.TestCase
TestHops.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
