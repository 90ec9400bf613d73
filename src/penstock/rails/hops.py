"""Hop-by-hop: ticks revealed straight to the supplier, under a lock that came to it over hubs.

The consumer locks to a hub, the hub to the next, the last one to the supplier, all under the root of one hash chain
(`core/hops.py`). Here are the two ends of the session over it, which know of no hub. Evidence is one of two, told apart
by its first byte:

    0x01 || uint32 count || preimage                     `count` ticks of the lock are proven
    0x02 || uint32 count || preimage || uint96 bill      the same, and the session's exact bill

A bill above what the ticks are worth, by less than one of them, says what the consumer pays with its `Ask`; one below
is what the supplier is done with.
"""

from __future__ import annotations

from struct import Struct

import msgspec

from penstock.core.channel import MAX_TICKS, Domain, Lock
from penstock.core.codec import decode_row, part_decoder
from penstock.core.effects import Rows
from penstock.core.errors import BadMessage, BadTerms, BadVoucher, OutOfFunds
from penstock.core.identity import Address
from penstock.core.rail import Capabilities, Evidence
from penstock.core.tariff import Bill
from penstock.core.ticks import TickChain, TickProof
from penstock.core.units import Amount, Instant, Quantity

NAME = "hops"
SEED_ROWS = b"hop-seed/"  # by root: what the payer's chain is made from, and where its lock stands
END_ROWS = b"hop-end/"  # by root: what the session came to, as evidence of its end
TICK_ROWS = b"hop-ticks/"  # by root: the last evidence that the payee took

CAPABILITIES = Capabilities(
    name=NAME,
    direction="one-way",
    hops=True,
    offline=True,
    modes=("pay-after", "pay-before"),
    by_meter=False,
    smallest="tick",
    refutable=True,
    payer_at_stake="credit limit",
    payee_at_stake="credit limit",
    trust=(),
    final="a preimage under a lock that the hub has signed, on the ledger, before the lock expires; or its fold",
    transactions=0,
    shared=True,
)

_TICK = Struct(">BI32s")
_END = Struct(">BI32s12s")
_TICK_KIND = 1
_END_KIND = 2


class HopOffer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a payee takes hop locks: its account and voucher key, and the seconds that a lock must still have to go."""

    domain: Domain
    payee: Address
    least_life: int


class HopTerms(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The lock that pays the session, as it has to stand at the payee. `expiry` is in seconds."""

    domain: Domain
    root: bytes
    ticks: int
    expiry: int


class SeedRow(msgspec.Struct, frozen=True):
    """The payer's chain of a route: its seed, and the first lock under its root (channel and number).

    `tick_value` is what a tick costs the payer, fees included, and `holding` what it paid for the locks up front.
    """

    seed: bytes
    ticks: int
    channel: bytes
    number: int
    tick_value: int
    holding: int


decode_terms = part_decoder(HopTerms)
decode_offer = part_decoder(HopOffer)


def check_lock(terms: HopTerms, lock: Lock, tick_value: int) -> None:
    """Pass where the lock that arrived is the one that the terms speak of.

    Raises:
        BadTerms: it is another one: a smaller one, of shorter life, or of other ticks.
    """
    if (lock.root, lock.ticks, lock.tick_value, lock.expiry) != (terms.root, terms.ticks, tick_value, terms.expiry):
        raise BadTerms(
            f"the lock that arrived has {lock.ticks} ticks of {lock.tick_value} until {lock.expiry}, the terms say "
            f"{terms.ticks} of {tick_value} until {terms.expiry}",
            "a hub on the route has changed it: take another route",
        )


class HopPayer:
    """The payer's end for one session."""

    by_meter = False

    __slots__ = ("_chain", "_end", "_revealed", "_root", "_tick", "_ticks")

    def __init__(self, terms: HopTerms, tick_value: int, seed: bytes, end: bytes | None = None) -> None:
        """`seed` is the chain's; `end` the journal's evidence of the end, where there is one.

        Raises:
            BadTerms: the seed is not that of the lock.
        """
        self._chain = TickChain(seed, terms.ticks)
        if self._chain.root != terms.root:
            raise BadTerms("the journal's seed is not that of the session's lock", "restore a backup of the journal")
        self._root, self._tick, self._ticks = terms.root, tick_value, terms.ticks
        self._end = end
        self._revealed = _parse(end)[0] if end else 0

    @property
    def paid(self) -> Amount:
        return Amount(_parse(self._end)[2] if self._end else self._revealed * self._tick)

    @property
    def ticks(self) -> int:
        return self._revealed

    @property
    def capacity(self) -> Amount:
        return Amount(self._ticks * self._tick)

    def open(self) -> Evidence:
        return Evidence(b"")  # the lock speaks for itself

    def pay(self, upto: int) -> list[Evidence]:
        count = min(upto // self._tick, self._ticks)
        if count <= self._revealed:
            return []
        self._revealed = count
        return [Evidence(self._evidence())]

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        return ()  # readings pay nothing here

    def fold(self) -> list[Evidence]:
        return []  # hubs hear nothing before the end

    def square(self, bill: int) -> Evidence:
        if not 0 <= bill <= self.capacity:
            raise OutOfFunds(f"a bill of {bill} is more than the lock's {self.capacity}")
        self._revealed = max(self._revealed, bill // self._tick)
        preimage = self._chain.preimage(self._revealed)
        self._end = _END.pack(_END_KIND, self._revealed, preimage, bill.to_bytes(12, "big"))
        return Evidence(self._end, ((END_ROWS + self._root, self._end),))

    def resume(self, state: bytes) -> list[Evidence]:
        count, preimage, _ = _parse(state)
        if count > self._ticks or preimage != self._chain.preimage(count):
            raise BadMessage("the payee claims ticks that it cannot prove")
        if count >= self._revealed:
            self._revealed = count
            return []
        return [Evidence(self._evidence())]

    def _evidence(self) -> bytes:
        return _TICK.pack(_TICK_KIND, self._revealed, self._chain.preimage(self._revealed))


class HopPayee:
    """The payee's end for one session."""

    __slots__ = ("_bill", "_end_key", "_proof", "_tick", "_tick_key")

    def __init__(self, terms: HopTerms, tick_value: int, ticks: bytes | None = None, end: bytes | None = None) -> None:
        """`ticks` and `end` are the journal's, where a session is taken up again."""
        count, preimage, _ = _parse(ticks) if ticks else (0, b"", 0)
        bill = None
        if end:
            count, preimage, bill = _parse(end)
        self._proof = TickProof(terms.root, terms.ticks, count, preimage)
        self._tick, self._bill = tick_value, bill
        self._tick_key, self._end_key = TICK_ROWS + terms.root, END_ROWS + terms.root

    @property
    def secured(self) -> Amount:
        return Amount(self._proof.count * self._tick if self._bill is None else self._bill)

    @property
    def ticks(self) -> int:
        return self._proof.count

    @property
    def capacity(self) -> Amount:
        return Amount(self._proof.ticks * self._tick)

    @property
    def proof(self) -> tuple[int, bytes]:
        """How many ticks are proven, and the preimage that proves them."""
        return self._proof.count, self._proof.preimage

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        return None  # readings pay nothing here

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        if not evidence and least is None:
            return ()  # the lock speaks for itself
        count, preimage, bill = _parse(evidence)
        if evidence[0] == _TICK_KIND:
            if least is not None:
                raise BadVoucher("a session ends with evidence of its exact bill, not with ticks")
            return ((self._tick_key, evidence),) if self._proof.advance(count, preimage) else ()
        if least is None:
            raise BadVoucher("the session's end, before its end")
        if bill != least or bill - count * self._tick >= self._tick:
            raise BadVoucher(f"the end is worth {bill} by {count} ticks, not the {least} due")
        self._proof.advance(count, preimage)
        self._bill = bill
        return ((self._end_key, evidence), (self._tick_key, _TICK.pack(_TICK_KIND, count, preimage)))

    def state(self) -> bytes:
        return _TICK.pack(_TICK_KIND, self._proof.count, self._proof.preimage)


def _parse(data: bytes) -> tuple[int, bytes, int]:
    """Ticks, the preimage that proves them, and the bill of an end.

    Raises:
        BadMessage: it is neither of the two.
    """
    bill = 0
    if len(data) == _TICK.size and data[0] == _TICK_KIND:
        _, count, preimage = _TICK.unpack(data)
    elif len(data) == _END.size and data[0] == _END_KIND:
        _, count, preimage, sum_ = _END.unpack(data)
        bill = int.from_bytes(sum_, "big")
    else:
        raise BadMessage("evidence of no kind that this rail knows")
    if count > MAX_TICKS:
        raise BadMessage("more ticks than a lock has")
    return count, preimage, bill


def proof_in(evidence: bytes) -> tuple[int, bytes, int]:
    """Ticks, preimage and bill (0 before the end) of evidence, as our journal has it."""
    return _parse(evidence)


def decode_seed(data: bytes) -> SeedRow:
    """The payer's chain from a journal row.

    Raises:
        JournalError: this version never wrote that.
    """
    return decode_row(data, SeedRow, "record of a route")
