"""Target: what neighbours say to each other in a channel that carries hop locks. The adversary holds the other's key.

A promise or a release whose signature is left empty is signed before it is shown, so that false sums that are well
signed are met.
"""

from __future__ import annotations

from typing import Any

import msgspec
from tests.core import pair

from penstock.core import codec
from penstock.core.channel import Lock, Release, Voucher
from penstock.core.errors import RemoteError
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
    worth_of,
)
from penstock.core.messages import Add, Ask, Hop, Promise, Settle, Taken, Told
from penstock.core.ticks import TickChain
from penstock.core.watcher import worth

MOST = 16  # messages in one input
DEPOSIT, UNTIL = 50_000, 10_000
CHAIN = TickChain(b"\x07" * 32, 20)
LOCK = Lock(CHAIN.root, 100, 20, 9_000)
ONWARD = (Hop(pair.SUPPLIER.address, 99, 8_000, 2),)

Said = Promise | Taken | Told


class Side:
    """A side of the channel: its books and its journal."""

    def __init__(self) -> None:
        self.out = Outgoing(pair.PARAMS, DEPOSIT, pair.CONSUMER, OutRow(NO_VOUCHER), {})
        self.incoming = Incoming(pair.PARAMS, DEPOSIT, pair.SUPPLIER, InRow(NO_VOUCHER), {})
        self.journal: dict[bytes, bytes] = {}

    @property
    def state(self) -> Any:
        out = self.out
        return (
            (out.row, dict(out.locks), dict(out.leaving), out.free, out.idle),
            (self.incoming.row, dict(self.incoming.locks)),
        )

    def keep(self, rows: Any) -> None:
        for key, value in rows:
            self.journal.pop(key, None) if value is None else self.journal.__setitem__(key, value)

    def promise(self) -> Promise:
        made = self.out.promise()
        assert made is not None
        self.keep(made[0])
        return made[1]

    def hear(self, said: Said) -> str:
        match said:
            case Promise():
                took = self.incoming.take(_promised(said), UNTIL)
                self.keep(took.rows)
                for number, held in list(self.incoming.locks.items()):  # what we know of it meanwhile
                    if not held.count and held.lock.root == CHAIN.root and held.lock.ticks == CHAIN.ticks:
                        self.keep(self.incoming.prove(number, 5, CHAIN.preimage(5)))
            case Taken():
                self.keep(self.out.taken(_released(said))[0])
            case Told():
                rows, lock = self.out.told(said)
                self.keep(rows)
                if lock is not None and said.done:
                    assert said.total <= lock.lock.value
                    self.out.settle(said.number, said.total)
                    if self.out.waiting is None:
                        self.promise()
        return type(said).__name__

    def holds(self) -> None:
        """What must be true after every message."""
        voucher = self.incoming.row.voucher
        assert 0 <= voucher.amount + voucher.locked <= DEPOSIT
        filing = filing_of(self.incoming.row, self.incoming.locks)
        assert voucher.holds(filing.locks)
        assert worth(filing) == worth_of(self.incoming.row, self.incoming.locks) <= DEPOSIT
        promised = self.out.row.voucher
        assert promised.amount + promised.locked <= DEPOSIT
        rows = self.journal
        if voucher.nonce:
            assert decode_in(rows[IN_ROWS + pair.PARAMS.id]) == self.incoming.row
        assert self._locks(IN_ROWS, decode_in_lock) == self.incoming.locks
        if promised.nonce:
            assert decode_out(rows[OUT_ROWS + pair.PARAMS.id]) == self.out.row
        assert self._locks(OUT_ROWS, decode_out_lock) == self.out.all

    def _locks(self, prefix: bytes, read: Any) -> dict[int, Any]:
        whole = prefix + pair.PARAMS.id
        keys = sorted(key for key in self.journal if key.startswith(whole) and len(key) > len(whole))
        return {int.from_bytes(key[len(whole) :], "big"): read(self.journal[key]) for key in keys}


def _promised(said: Promise) -> Promise:
    return said if said.signature else replace(said, signature=_sign(said.voucher, pair.CONSUMER))


def _released(said: Taken) -> Taken:
    return said if said.release else replace(said, release=_sign(Release(said.nonce, 3), pair.SUPPLIER))


def _sign(said: Any, key: Any) -> bytes:
    try:
        return bytes(key.sign(said.digest(pair.PARAMS)))
    except (OverflowError, ValueError):
        return bytes(65)


replace = msgspec.structs.replace


def hops(data: bytes) -> object:
    """Promises to a payee, and answers to a payer that has one lock under way and one queued."""
    side, outcome = Side(), ""
    side.out.add(LOCK, 3, ONWARD)
    side.promise()
    side.out.add(replace(LOCK, ticks=3), 0, ())
    for said in codec.decode_part(data, list[Said])[:MOST]:
        before = side.state
        try:
            outcome = side.hear(said)
        except RemoteError as error:
            outcome = type(error).__name__ + str(error)[:12]
            assert side.state == before, "what was refused has changed something"
        side.holds()
    return outcome, len(side.incoming.locks), side.out.row.released


def hops_seeds() -> list[bytes]:
    """A lock's life as its payee hears it and as its payer does; signed, and to be signed; and steps out of order."""
    out = Outgoing(pair.PARAMS, DEPOSIT, pair.CONSUMER, OutRow(NO_VOUCHER), {})
    incoming = Incoming(pair.PARAMS, DEPOSIT, pair.SUPPLIER, InRow(NO_VOUCHER), {})
    promises: list[Promise] = []
    answers: list[Taken | Told] = []

    def exchange() -> None:
        made = out.promise()
        assert made is not None
        took = incoming.take(made[1], UNTIL)
        out.taken(took.answer)
        promises.append(made[1])
        answers.append(took.answer)

    def told(number: int) -> Told:
        said = incoming.locks[number].told(Place(pair.PARAMS.id, number))
        assert said is not None
        return said

    number = out.add(LOCK, 3, ONWARD)
    exchange()
    incoming.place(number)
    answers.append(told(number))
    out.add(replace(LOCK, ticks=3), 0, ())
    incoming.prove(number, 5, CHAIN.preimage(5))
    out.ask(number, 5, CHAIN.preimage(5), 40)
    exchange()
    incoming.done(number, 480)
    answers.append(told(number))
    out.told(told(number))
    out.settle(number, 480)
    exchange()
    blank = [replace(one, signature=b"") for one in promises]
    released = [replace(one, release=b"") if isinstance(one, Taken) else one for one in answers]
    whole = Voucher.over(1, 3 + 2_000, ())
    at_once = Promise(pair.PARAMS.id, whole, b"", (Add(1, LOCK, 3, ONWARD), Ask(1, 0, b"", 0), Settle(1, 2_000)))
    large = replace(LOCK, tick_value=DEPOSIT)
    beyond = Promise(pair.PARAMS.id, Voucher.over(1, 0, (large,)), b"", (Add(1, large, 0, ()),))
    mixed: list[Said] = [blank[0], answers[0], *answers[1:3], blank[1], promises[1]]
    return [
        codec.encode(one) for one in (promises, blank, answers, released[:2], mixed, [at_once], [beyond], blank[::-1])
    ]
