"""A channel that carries hop locks, between two neighbours: its payer's side (`Outgoing`) and its payee's (`Incoming`).

The payer changes what it promises one voucher at a time, and the payee answers each with its release of all the older
ones, so that what has been removed can never be claimed again:

    payer                                   payee
    Enter(channel)                    ->
                                      <-    Entered(nonce)             (after each lost link)
    Promise(voucher, changes)         ->                               add a lock, ask for its end, settle it
                                      <-    Taken(release)
                                      <-    Told(lock, in place | done)

A lock comes into the world by `Add`, which pays a fee for holding it up front. It ends by `Settle`, for which the payee
has to say first that it is done, and at what sum: a lock of which it knows no tick is done at 0. Nothing is said about
a lock between these two.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from penstock.core.channel import MAX_LOCKS, ChannelParams, Lock, Release, Voucher
from penstock.core.codec import decode_row, encode
from penstock.core.effects import Rows
from penstock.core.errors import BadMessage, BadVoucher, IllegalEvent, OutOfFunds
from penstock.core.identity import Address, Key, check_signed
from penstock.core.messages import Add, Ask, Change, Hop, Promise, Settle, Taken, Told
from penstock.core.ports import Filing
from penstock.core.ticks import TickProof
from penstock.core.units import MAX_AMOUNT, Amount

OUT_ROWS = b"lock-out/"  # by channel: its payer's last voucher; by channel and number: a lock under it
IN_ROWS = b"lock-in/"  # the same of its payee
AT_ONCE = 64  # changes under one voucher
MAX_ONWARD = 3  # hops after this one
NO_VOUCHER = Voucher.over(0, 0)


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a lock stands: a channel (its id) and the lock's number in it."""

    channel: bytes
    number: int


class OutRow(msgspec.Struct, frozen=True):
    """The payer's books of a channel: its last voucher, the changes that this made, and the payee's last release.

    `released` is the nonce of the last voucher that the payee has taken, `amount` what it promised for good, `root`
    that of its locks, and `release` the payee's signature that it uses none before it. Where that is the voucher
    itself, nothing is under way. `last` is the highest number that a lock has had.
    """

    voucher: Voucher
    signature: bytes = b""
    changes: tuple[Change, ...] = ()
    released: int = 0
    amount: int = 0
    root: bytes = bytes(32)
    release: bytes = b""
    last: int = 0


class OutLock(msgspec.Struct, frozen=True):
    """A lock that we promise. `origin` is the one that pays for it, where we are a hub."""

    lock: Lock
    origin: Place | None = None
    placed: bool = False
    asked: bool = False


class InRow(msgspec.Struct, frozen=True):
    """The payee's books of a channel: the newest voucher that it holds, and the highest number of a lock in it."""

    voucher: Voucher
    signature: bytes = b""
    last: int = 0


class InLock(msgspec.Struct, frozen=True):
    """A lock that we are promised: its way from here, how much of it we can prove, and at what sum it is done.

    `out` is the lock that it pays for, where we are a hub; `ending` is what it will be done at, once that one's payee
    has released it. `done` is None until nothing more can come of the lock.
    """

    add: Add
    count: int = 0
    preimage: bytes = b""
    out: Place | None = None
    placed: bool = False
    ending: int | None = None
    done: int | None = None
    why: str = ""
    asked: bool = False
    rest: int = 0

    @property
    def lock(self) -> Lock:
        return self.add.lock

    @property
    def worth(self) -> int:
        """What we can prove of it (token units)."""
        return self.count * self.add.lock.tick_value

    def told(self, place: Place) -> Told | None:
        """What our payer has to be told of it by now."""
        if self.done is not None:
            return Told(place.channel, place.number, True, self.count, self.preimage, self.done, self.why)
        return Told(place.channel, place.number, False, 0, b"", 0, "") if self.placed else None


def rests_of(locks: dict[int, OutLock]) -> int:
    """What the ends of these locks may still ask for, beside what is locked (token units)."""
    return sum(held.lock.tick_value for held in locks.values() if not held.asked)


def lock_key(prefix: bytes, place: Place) -> bytes:
    """The key of a lock's row."""
    return prefix + place.channel + place.number.to_bytes(8, "big")


class Outgoing:
    """The payer's books of one channel. What it returns as rows must be durable before the message leaves."""

    def __init__(self, params: ChannelParams, deposit: int, key: Key, row: OutRow, locks: dict[int, OutLock]) -> None:
        """`row` and `locks` are the journal's; `deposit` is ours as the ledger has it (token units)."""
        self.params, self.deposit, self._key = params, deposit, key
        self.row, self.locks = row, locks
        self._settling: set[int] = set()  # locks whose end is queued
        self.leaving: dict[int, OutLock] = {}
        """Locks that the promise under way removes: until the payee releases what came before, it can claim them."""
        if self.waiting is not None:
            self._leave(row.changes)
        self._queue: list[tuple[Change, OutLock | None]] = []
        self._reserved = 0  # by what is queued
        self._last = row.last

    @property
    def free(self) -> int:
        """What can still be locked (token units). Each lock keeps the rest of a tick free: its end may ask for it."""
        voucher, rests = self.row.voucher, rests_of(self.locks)
        return max(0, min(self.deposit, MAX_AMOUNT) - voucher.amount - voucher.locked - self._reserved - rests)

    def lent(self, channel: bytes) -> int:
        """What is locked here for whom that incoming channel comes from, or is about to be (token units)."""
        held = [*self.locks.values(), *(made for _, made in self._queue if made is not None)]
        return sum(one.lock.value for one in held if one.origin is not None and one.origin.channel == channel)

    @property
    def waiting(self) -> Promise | None:
        """The promise that the payee has not answered."""
        row = self.row
        if row.released == row.voucher.nonce:
            return None
        return Promise(self.params.id, row.voucher, row.signature, row.changes)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, nor waits to be."""
        return self.waiting is None and not self._queue

    def add(self, lock: Lock, holding: int, onward: tuple[Hop, ...], origin: Place | None = None) -> int:
        """Promise a lock with the next voucher, and `holding` for good. Returns its number.

        Raises:
            OutOfFunds: the channel has not so much left.
        """
        lock.check()
        need = lock.value + lock.tick_value + holding
        if need > self.free:
            raise OutOfFunds(f"the channel has {self.free} token units left, not {need}")
        if len(self.locks) + len(self._queue) >= MAX_LOCKS:
            raise OutOfFunds(f"the channel carries {MAX_LOCKS} locks already")
        self._last += 1
        self._reserved += need
        self._queue.append((Add(self._last, lock, holding, onward), OutLock(lock, origin)))
        return self._last

    def ask(self, number: int, count: int, preimage: bytes, rest: int) -> None:
        """Ask for a lock's end where it stands at `count`; the `rest`, less than a tick, is paid with it for good."""
        if number in self.locks or self._queued(number):
            self._queue.append((Ask(number, count, preimage, rest), None))

    def settle(self, number: int, total: int) -> None:
        """Pay `total` for a lock, and remove it."""
        if number in self.locks and number not in self._settling:
            self._settling.add(number)
            self._queue.append((Settle(number, total), None))

    def _queued(self, number: int) -> bool:
        return any(isinstance(change, Add) and change.number == number for change, _ in self._queue)

    def promise(self) -> tuple[Rows, Promise] | None:
        """The next voucher, with what is queued; None where there is nothing to promise, or one is under way."""
        if not self._queue or self.waiting is not None:
            return None
        now, self._queue = self._queue[:AT_ONCE], self._queue[AT_ONCE:]
        amount, changes = self.row.voucher.amount, list[Change]()
        rows: list[tuple[bytes, bytes | None]] = []
        for change, made in now:
            place = Place(self.params.id, change.number)
            if isinstance(change, Ask) and not self._may_ask(change.number):
                continue
            changes.append(change)
            match change:
                case Add(lock=lock, holding=holding):
                    assert made is not None
                    amount += holding
                    self._reserved -= lock.value + lock.tick_value + holding
                    self.locks[change.number] = made
                    rows.append((lock_key(OUT_ROWS, place), encode(made)))
                case Ask(number=number, rest=rest):
                    amount += rest
                    self.locks[number] = asked = msgspec.structs.replace(self.locks[number], asked=True)
                    rows.append((lock_key(OUT_ROWS, place), encode(asked)))
                case Settle(total=total):
                    amount += total
        if not changes:
            return self.promise()
        self._leave(tuple(changes))
        voucher = Voucher.over(
            self.row.voucher.nonce + 1, amount, [self.locks[number].lock for number in sorted(self.locks)]
        )
        signature = self._key.sign(voucher.digest(self.params))
        self.row = msgspec.structs.replace(
            self.row, voucher=voucher, signature=signature, changes=tuple(changes), last=self._last
        )
        promise = self.waiting
        assert promise is not None
        return ((OUT_ROWS + self.params.id, encode(self.row)), *rows), promise

    def _may_ask(self, number: int) -> bool:
        """A lock's end is asked for once, and not where it is queued."""
        held = self.locks.get(number)
        return held is not None and not held.asked and number not in self._settling

    def _leave(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if isinstance(change, Settle):
                self.leaving[change.number] = self.locks.pop(change.number)
                self._settling.discard(change.number)

    @property
    def all(self) -> dict[int, OutLock]:
        """The locks that the payee may still claim, by their numbers."""
        return {**self.locks, **self.leaving}

    def taken(self, taken: Taken) -> tuple[Rows, tuple[Change, ...]]:
        """The payee has taken the promise under way, and released all before. Returns what it changed, too.

        Raises:
            BadMessage, BadSignature: it released something else, or did not sign. Nothing has changed.
        """
        waiting = self.waiting
        if waiting is None or taken.nonce != waiting.voucher.nonce:
            if taken.nonce == self.row.released:
                return (), ()  # said again, after a lost link
            raise BadMessage(f"voucher {taken.nonce} is not under way")
        amount = waiting.voucher.amount
        check_signed(Release(taken.nonce, amount).digest(self.params), taken.release, self._payee_key, "the release")
        self.row = msgspec.structs.replace(
            self.row,
            released=taken.nonce,
            amount=amount,
            root=waiting.voucher.locks_root,
            release=taken.release,
            changes=(),
        )
        gone = ((lock_key(OUT_ROWS, Place(self.params.id, number)), None) for number in self.leaving)
        rows: Rows = ((OUT_ROWS + self.params.id, encode(self.row)), *gone)
        self.leaving = {}
        return rows, waiting.changes

    def told(self, told: Told) -> tuple[Rows, OutLock | None]:
        """The payee says how a lock stands; None where it is gone.

        Raises:
            BadMessage, BadPreimage: what it says cannot be. Nothing has changed.
        """
        held = self.locks.get(told.number)
        if held is None or told.number in self._settling:
            return (), None
        if told.done:
            TickProof(held.lock.root, held.lock.ticks).advance(
                told.count, told.preimage if told.count else held.lock.root
            )
            if not 0 <= told.total <= told.count * held.lock.tick_value:
                raise BadMessage(f"{told.total} token units for {told.count} ticks of {held.lock.tick_value}")
            return (), held
        if held.placed:
            return (), held  # said again: who had to hear it may have died before that was durable
        self.locks[told.number] = held = msgspec.structs.replace(held, placed=True)
        return ((lock_key(OUT_ROWS, Place(self.params.id, told.number)), encode(held)),), held

    @property
    def _payee_key(self) -> Address:
        return self.params.partner_key


class Took(NamedTuple):
    """What a payee makes of a promise: rows first, then the answer; and what it changed, nothing where it was known."""

    rows: Rows
    answer: Taken
    changes: tuple[Change, ...]


class Incoming:
    """The payee's books of one channel. What it returns as rows must be durable before anything is answered."""

    def __init__(self, params: ChannelParams, deposit: int, key: Key, row: InRow, locks: dict[int, InLock]) -> None:
        """`row` and `locks` are the journal's; `deposit` is the payer's as the ledger has it (token units)."""
        self.params, self.deposit, self._key = params, deposit, key
        self.row, self.locks = row, locks

    def take(self, promise: Promise, until: int) -> Took:
        """Check a promise against the books: the contract must pay all of it, in every order. No lock may expire later
        than `until` (seconds): the contract takes no voucher that locks for too long.

        Raises:
            BadMessage, BadVoucher, BadSignature: it is not what follows. Nothing has changed.
        """
        held, voucher = self.row.voucher, promise.voucher
        if voucher == held and promise.signature == self.row.signature:
            return Took((), self._answer(voucher), ())
        if voucher.nonce != held.nonce + 1:
            raise BadVoucher(f"voucher {voucher.nonce} does not follow {held.nonce}")
        if not 0 < len(promise.changes) <= AT_ONCE:
            raise BadMessage(f"a promise changes 1..{AT_ONCE} locks")
        amount, last, locks = held.amount, self.row.last, dict(self.locks)
        rows: list[tuple[bytes, bytes | None]] = []
        for change in promise.changes:
            place = lock_key(IN_ROWS, Place(self.params.id, change.number))
            match change:
                case Add(number=number, lock=lock, holding=holding, onward=onward):
                    lock.check()
                    if number <= last or not 0 < lock.expiry <= until or len(onward) > MAX_ONWARD:
                        raise BadVoucher(
                            f"a hop lock has a new number, an expiry not after {until}, and at most {MAX_ONWARD} hops"
                        )
                    if any(len(hop.payee) != 20 for hop in onward):
                        raise BadVoucher("a route names accounts of 20 bytes")
                    sums = [holding, *(sum_ for hop in onward for sum_ in (hop.tick_value, hop.holding))]
                    if not all(0 <= one <= MAX_AMOUNT for one in sums):
                        raise BadVoucher("a route's sums are uint96")
                    amount, last, locks[number] = amount + holding, number, InLock(change)
                    rows.append((place, encode(locks[number])))
                case Ask(number=number, preimage=preimage, rest=rest):
                    asked = self._known(locks, number)
                    # What goes onward must be taken everywhere on the way, or it would jam the channel there for good.
                    tick = min(asked.lock.tick_value, *(hop.tick_value for hop in asked.add.onward), MAX_AMOUNT)
                    if asked.asked or not 0 <= rest < tick or len(preimage) not in (0, 32):
                        raise BadVoucher("a lock's end is asked for once, with less than a tick and a preimage")
                    amount += rest
                    locks[number] = msgspec.structs.replace(asked, asked=True, rest=rest)
                    rows.append((place, encode(locks[number])))
                case Settle(number=number, total=total):
                    settled = self._known(locks, number)
                    if settled.done is None:  # at whatever sum: a hub still owes the lock that this one pays for
                        raise BadVoucher(f"lock {number} is settled before its payee was done with it")
                    if not settled.done <= total <= settled.lock.value:
                        raise BadVoucher(f"lock {number} is settled at {total}, not {settled.done}")
                    amount += total
                    del locks[number]
                    rows.append((place, None))
        if len(locks) > MAX_LOCKS:
            raise BadVoucher(f"{len(locks)} locks under one voucher, more than {MAX_LOCKS}")
        if voucher.amount != amount or not voucher.holds([locks[number].lock for number in sorted(locks)]):
            raise BadVoucher("the voucher's sums do not follow from its changes")
        if not 0 <= voucher.amount + voucher.locked <= min(self.deposit, MAX_AMOUNT):
            raise BadVoucher(f"the voucher promises more than the channel's deposit of {self.deposit}")
        check_signed(voucher.digest(self.params), promise.signature, self.params.opener_key, "the voucher")
        self.row, self.locks = InRow(voucher, promise.signature, last), locks
        return Took(((IN_ROWS + self.params.id, encode(self.row)), *rows), self._answer(voucher), promise.changes)

    @staticmethod
    def _known(locks: dict[int, InLock], number: int) -> InLock:
        if number not in locks:
            raise BadVoucher(f"there is no lock {number}")
        return locks[number]

    def _answer(self, voucher: Voucher) -> Taken:
        release = Release(voucher.nonce, voucher.amount)
        return Taken(self.params.id, voucher.nonce, self._key.sign(release.digest(self.params)))

    def prove(self, number: int, count: int, preimage: bytes) -> Rows:
        """`count` ticks of a lock are proven by a preimage; fewer than before change nothing.

        Raises:
            BadPreimage: it does not prove them. IllegalEvent: there is no such lock.
        """
        held = self._held(number)
        if count <= held.count:
            return ()
        TickProof(held.lock.root, held.lock.ticks, held.count, held.preimage).advance(count, preimage)
        return self._keep(number, msgspec.structs.replace(held, count=count, preimage=preimage))

    def forward(self, number: int, out: Place) -> Rows:
        """A lock is promised onward as `out`."""
        return self._keep(number, msgspec.structs.replace(self._held(number), out=out))

    def place(self, number: int) -> Rows:
        """A lock is in place, here and all the way from here."""
        held = self._held(number)
        return () if held.placed else self._keep(number, msgspec.structs.replace(held, placed=True))

    def end(self, number: int, total: int) -> Rows:
        """A lock will be done at `total`, once the one that it pays for has been released."""
        held = self._held(number)
        return self._keep(number, msgspec.structs.replace(held, ending=max(0, min(total, held.worth))))

    def done(self, number: int, total: int, why: str = "") -> Rows:
        """Nothing more comes of a lock: its payer may settle it at `total`."""
        held = self._held(number)
        if held.done is not None:
            return ()
        total = max(0, min(total, held.worth))
        return self._keep(number, msgspec.structs.replace(held, done=total, why=why[:200]))

    def lapse(self, number: int) -> Rows:
        """A lock has expired on the ledger: nothing can be claimed of it any more, whatever was said."""
        held = self._held(number)
        if held.done == 0:
            return ()
        return self._keep(number, msgspec.structs.replace(held, done=0, why="the lock has expired"))

    def _held(self, number: int) -> InLock:
        if number not in self.locks:
            raise IllegalEvent(f"there is no lock {number}")
        return self.locks[number]

    def _keep(self, number: int, held: InLock) -> Rows:
        self.locks[number] = held
        return ((lock_key(IN_ROWS, Place(self.params.id, number)), encode(held)),)


def filing_of(row: InRow, locks: dict[int, InLock]) -> Filing:
    """What the payee of a channel can file: its voucher, the locks in their order, and the ticks that it can prove."""
    held = [locks[number] for number in sorted(locks)]
    return Filing(
        row.voucher,
        row.signature,
        tuple(one.lock for one in held),
        tuple((one.count, one.preimage) for one in held),
    )


def worth_of(row: InRow, locks: dict[int, InLock]) -> Amount:
    """What a payee's books are worth on the ledger now (token units)."""
    return Amount(row.voucher.amount + sum(one.worth for one in locks.values()))


def decode_out(data: bytes) -> OutRow:
    """The payer's books from a journal row.

    Raises:
        JournalError: this version never wrote that.
    """
    return decode_row(data, OutRow, "record of hop locks")


def decode_out_lock(data: bytes) -> OutLock:
    """A lock of the payer's, from a journal row. Raises as `decode_out`."""
    return decode_row(data, OutLock, "hop lock")


def decode_in(data: bytes) -> InRow:
    """The payee's books from a journal row. Raises as `decode_out`."""
    return decode_row(data, InRow, "record of hop locks")


def decode_in_lock(data: bytes) -> InLock:
    """A lock of the payee's, from a journal row. Raises as `decode_out`."""
    return decode_row(data, InLock, "hop lock")
