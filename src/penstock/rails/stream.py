"""The stream channel: ticks revealed from a hash chain under a voucher of a payment channel on an EVM ledger.

Evidence is one of two, told apart by its first byte:

    0x01 || uint64 nonce || uint32 count || preimage     `count` ticks of the lock under that voucher are proven
    0x02 || JSON of VoucherNote                          a newer voucher: a fold, a fresh chain, or the exact bill

The payer derives the seed of the chain under voucher n as sha256(purpose || secret || channel || n). Nonces never
repeat in a channel, so no seed is used twice; a payer that crashed derives the same chain again, and learns from the
payee, who must prove it, how much of it was revealed.

In a two-way channel each party is the payer of one direction, and what it earns it can spend: a voucher is backed by
its payer's deposit and by the amount of the best voucher that the payee itself has given, for of those two sums the
contract pays the difference. Ticks back nothing before they are folded into an amount: whoever proves them last decides
what they are worth. So a payer in a session that pays both ways folds once a second, whatever there is to fold.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import NamedTuple

import msgspec

from penstock.core.channel import MAX_TICKS, ChannelParams, Domain, Lock, Voucher
from penstock.core.codec import decode_part, decode_row, encode, part_decoder
from penstock.core.effects import Rows
from penstock.core.errors import BadMessage, BadTerms, BadVoucher, IllegalEvent, OutOfFunds, OutOfRange, Unbacked
from penstock.core.identity import Address, Key, Signer
from penstock.core.rail import Capabilities, Ends, Evidence
from penstock.core.tariff import Bill
from penstock.core.ticks import TickChain, TickProof
from penstock.core.units import MAX_AMOUNT, Amount, Instant, Quantity

NAME = "stream-channel"
PAID_ROWS = b"paid/"  # by channel: what we promised as its payer
EARNED_ROWS = b"earned/"  # by channel: the best voucher that we hold as its payee
TICK_ROWS = b"ticks/"  # by channel: the last preimage under that voucher

FOLD_EVERY = 512  # ticks: at some 264 gas each to walk on chain, against one signature a fold
PIECES = 64  # of evidence in one go: what has left is checked at the other end while we make the next
MAX_WALK = 4096  # ticks unfolded that a payee accepts; walking them costs about a million gas

CAPABILITIES = Capabilities(
    name=NAME,
    direction="two-way",
    hops=False,
    offline=True,
    modes=("pay-after", "pay-before"),
    by_meter=False,
    smallest="tick",
    refutable=True,
    payer_at_stake="credit limit",
    payee_at_stake="credit limit",
    trust=(),
    final="the payer's signature or preimage, on the ledger, once the challenge period is over; or both signatures",
    transactions=2,
    shared=True,
)

_TICK = Struct(">BQI32s")
_TICK_KIND = 1
_VOUCHER_KIND = 2


class StreamOffer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a payee needs of a channel: its account, its voucher key, and a challenge period (s) to react in."""

    domain: Domain
    payee: Address
    payee_key: Address
    min_period: int


class StreamBack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The other direction of a channel when a session begins: the partner's last voucher, and its tick's worth.

    A `tick_value` of 0 says that the session pays the opener nothing; what was promised to it before still counts.
    """

    nonce: int
    amount: int
    tick_value: int


class StreamTerms(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The channel, and where it stands when the session begins: the payer's last voucher, fully folded.

    `back` is the other direction of a two-way channel.
    """

    params: ChannelParams
    nonce: int
    amount: int
    tick_value: int
    back: StreamBack | None = None


class VoucherNote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A voucher as it travels: with its signature (65 bytes) and its locks (none, or one)."""

    voucher: Voucher
    signature: bytes
    locks: tuple[Lock, ...]


_decode_note = part_decoder(VoucherNote)


class PaidRow(msgspec.Struct, frozen=True):
    """The payer's books: its last voucher, and the chain under it: `offset` of `chain_ticks` are folded.

    `chain_nonce` names the voucher that brought the chain in, from which its seed is derived. A row without lock
    leaves `chain_ticks` at 0.
    """

    note: VoucherNote
    chain_nonce: int = 0
    chain_ticks: int = 0
    offset: int = 0
    ticks: int = 0


class EarnedRow(msgspec.Struct, frozen=True):
    """The payee's books: the best voucher held. `ticks` counts those folded into it since the session began."""

    note: VoucherNote
    ticks: int = 0


class Way(NamedTuple):
    """One direction of a channel as a session finds it: whose key signs its vouchers, its last voucher, and its ticks.

    `backing` is what the other direction had promised by then, and what this one may promise beyond its deposit.
    """

    signer: Address
    nonce: int
    amount: int
    tick_value: int
    backing: int


def way(terms: StreamTerms, back: bool) -> Way:
    """The direction from the opener to the partner, or `back`."""
    params, other = terms.params, terms.back
    if not back:
        return Way(params.opener_key, terms.nonce, terms.amount, terms.tick_value, other.amount if other else 0)
    if other is None:
        raise IllegalEvent("nothing is paid back in a one-way channel")
    return Way(params.partner_key, other.nonce, other.amount, other.tick_value, terms.amount)


def check_terms(
    offer: StreamOffer,
    terms: StreamTerms,
    deposits: tuple[int, int],
    ticks: tuple[int, int],
) -> None:
    """Pass where both parties can be paid under these terms.

    `deposits` are the opener's and the partner's (token units) as the ledger has them; `ticks` is what a tick is worth
    by the session's terms, to the partner and back to the opener, or 0 where nothing is paid back.

    Raises:
        BadTerms: another ledger, payee, key or period than was offered, or numbers that do not fit.
    """
    params = terms.params
    if params.domain != offer.domain:
        raise BadTerms("the channel is on another ledger than was offered")
    try:
        params.check()
    except OutOfRange as error:
        raise BadTerms(str(error)) from None
    if params.partner != offer.payee or params.partner_key != offer.payee_key:
        raise BadTerms("the channel does not lead to the supplier's account and key")
    if params.period < offer.min_period:
        raise BadTerms(f"the channel's challenge period of {params.period} s is below {offer.min_period} s")
    if params.two_way is not (terms.back is not None):
        raise BadTerms("the terms name one direction for a one-way channel, and both for a two-way one")
    back = terms.back or StreamBack(0, 0, 0)
    if (terms.tick_value, back.tick_value) != ticks:
        raise BadTerms("a tick of the channel's is not worth what the session's terms say")
    if not (0 <= terms.nonce < 2**63 and 0 <= terms.amount <= deposits[0] + back.amount <= MAX_AMOUNT):
        raise BadTerms("the channel's last voucher does not fit its deposit")
    if not (0 <= back.nonce < 2**63 and 0 <= back.amount <= deposits[1] + terms.amount <= MAX_AMOUNT):
        raise BadTerms("the supplier's last voucher in the channel does not fit its deposit")


class StreamPayer:
    """The payer's end for one session over one direction of a channel."""

    by_meter = False

    __slots__ = (
        "_at_once",
        "_backing",
        "_chain",
        "_deposit",
        "_key",
        "_other",
        "_params",
        "_revealed",
        "_row",
        "_secret",
        "_start",
        "_tick",
    )

    def __init__(
        self,
        terms: StreamTerms,
        deposit: int,
        key: Key,
        secret: bytes,
        row: PaidRow | None = None,
        at_once: int = MAX_WALK,
        *,
        back: bool = False,
    ) -> None:
        """`secret` is 32 bytes, this session's alone; `row` is the journal's where a session is taken up again.

        `deposit` is the payer's own, and `at_once` the most ticks that one piece of evidence reveals. The payer is the
        channel's partner where it pays `back`.

        Raises:
            BadTerms: the journal's last voucher is not the one that the terms begin with.
        """
        begin = way(terms, back)
        self._params, self._deposit, self._key, self._secret = terms.params, deposit, key, secret
        self._at_once = at_once
        self._start, self._tick, self._backing = begin.amount, begin.tick_value, begin.backing
        self._other: StreamPayee | None = None
        if row is not None and (row.note.voucher.nonce < begin.nonce or row.note.voucher.amount < begin.amount):
            raise BadTerms("our last voucher in this channel is older than the session's first")
        if row is None or row.note.voucher.nonce == begin.nonce:  # an earlier session's, or nobody's
            row = PaidRow(VoucherNote(Voucher.over(begin.nonce, begin.amount), b"", ()))
        self._row = row
        self._chain: TickChain | None = None
        if self._row.chain_ticks:
            self._chain = TickChain(self._seed(self._row.chain_nonce), self._row.chain_ticks)
        self._revealed = 0  # under the last voucher

    @property
    def paid(self) -> Amount:
        return Amount(self._row.note.voucher.amount - self._start + self._revealed * self._tick)

    @property
    def ticks(self) -> int:
        return self._row.ticks + self._revealed

    @property
    def capacity(self) -> Amount:
        return Amount(self._funds - self._start)

    def add(self, deposit: int) -> None:
        """The payer's deposit has grown to so much, final on the ledger."""
        self._deposit = max(self._deposit, deposit)

    @property
    def promised(self) -> int:
        """What was promised in this direction for good, in all sessions (token units): it backs the other direction."""
        return self._row.note.voucher.amount

    @property
    def _funds(self) -> int:
        """The most that our vouchers may promise."""
        backing = self._backing if self._other is None else self._other.promised
        return min(self._deposit + backing, MAX_AMOUNT)

    def open(self) -> Evidence:
        return self._fresh_chain()

    def pay(self, upto: int) -> list[Evidence]:
        evidence: list[Evidence] = []
        wanted = (upto - self.paid) // self._tick
        while wanted > 0 and len(evidence) < PIECES:
            left = self._lock_ticks - self._revealed
            if left == 0:
                if self.capacity - self.paid < self._tick:
                    break
                evidence.append(self._fresh_chain())
                continue
            now = min(wanted, left, (PIECES - len(evidence)) * self._at_once)
            evidence += self._reveal(now)
            wanted -= now
        return evidence

    def _reveal(self, ticks: int) -> list[Evidence]:
        """Reveal so many more ticks of the lock, in pieces of at most `at_once`."""
        assert self._chain is not None
        preimage, offset, nonce = self._chain.preimage, self._row.offset, self._row.note.voucher.nonce
        first, last = self._revealed, self._revealed + ticks
        self._revealed = last
        counts = [*range(first + self._at_once, last, self._at_once), last]
        return [Evidence(_TICK.pack(_TICK_KIND, nonce, count, preimage(offset + count))) for count in counts]

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        return ()  # readings pay nothing here

    def fold(self) -> list[Evidence]:
        if self._revealed < (FOLD_EVERY if self._other is None else 1):
            return []
        if self._revealed < self._lock_ticks:
            return [self._fold()]
        if self._other is None:
            return []  # the next payment begins a fresh chain
        return [self._fresh_chain() if self.capacity - self.paid >= self._tick else self._unlocked()]

    def square(self, bill: int) -> Evidence:
        if not 0 <= bill <= self.capacity:
            raise OutOfFunds(f"a bill of {bill} is more than the channel's {self.capacity}")
        voucher = self._row.note.voucher
        amount = self._start + bill
        if voucher.locked == 0 and voucher.amount == amount and self._row.note.signature:
            return Evidence(self._note_evidence(self._row.note))  # the same again: a lost answer is asked for twice
        return self._promise(Voucher.over(voucher.nonce + 1, amount), (), PaidRow)

    def resume(self, state: bytes) -> list[Evidence]:
        nonce, count, preimage = _parse_tick(state)
        voucher = self._row.note.voucher
        if nonce > voucher.nonce:
            raise BadMessage("the payee claims a voucher that we never signed")
        if nonce < voucher.nonce:
            again = [Evidence(self._note_evidence(self._row.note))]
            return [*again, Evidence(self._tick_evidence())] if self._revealed else again
        if count > self._lock_ticks or (count and preimage != self._preimage(count)):
            raise BadMessage("the payee claims ticks that it cannot prove")
        if count >= self._revealed:
            self._revealed = count
            return []
        return [Evidence(self._tick_evidence())]

    @property
    def _lock_ticks(self) -> int:
        return self._row.note.locks[0].ticks if self._row.note.locks else 0

    def _seed(self, nonce: int) -> bytes:
        return sha256(b"penstock/seed/1" + self._secret + self._params.id + nonce.to_bytes(8, "big")).digest()

    def _preimage(self, count: int) -> bytes:
        assert self._chain is not None
        return self._chain.preimage(self._row.offset + count)

    def _tick_evidence(self) -> bytes:
        return _TICK.pack(_TICK_KIND, self._row.note.voucher.nonce, self._revealed, self._preimage(self._revealed))

    @staticmethod
    def _note_evidence(note: VoucherNote) -> bytes:
        return bytes((_VOUCHER_KIND,)) + encode(note)

    def _fold(self) -> Evidence:
        """The same worth, with the ticks revealed so far made amount, and the chain from where it stands."""
        row, lock, count = self._row, self._row.note.locks[0], self._revealed
        rest = Lock(self._preimage(count), lock.tick_value, lock.ticks - count, lock.expiry)
        voucher = Voucher.over(row.note.voucher.nonce + 1, row.note.voucher.amount + count * lock.tick_value, (rest,))
        return self._promise(voucher, (rest,), PaidRow, row.chain_nonce, row.chain_ticks, row.offset + count)

    def _fresh_chain(self) -> Evidence:
        """A voucher with all that was revealed as amount, and a new chain as long as the deposit allows."""
        voucher = self._row.note.voucher
        nonce, amount = voucher.nonce + 1, self._start + self.paid
        length = min(MAX_WALK, (self._funds - amount) // self._tick)
        if length <= 0:
            raise OutOfFunds(
                f"the channel has {self._funds - amount} token units left, less than one tick of {self._tick}",
                "add to the channel, or open one with a larger deposit",
            )
        chain = TickChain(self._seed(nonce), length)
        lock = Lock(chain.root, self._tick, length)
        evidence = self._promise(Voucher.over(nonce, amount, (lock,)), (lock,), PaidRow, nonce, length, 0)
        self._chain = chain
        return evidence

    def _unlocked(self) -> Evidence:
        """A voucher with all that was revealed as amount, and nothing that could follow."""
        voucher = self._row.note.voucher
        return self._promise(Voucher.over(voucher.nonce + 1, self._start + self.paid), (), PaidRow)

    def _promise(
        self,
        voucher: Voucher,
        locks: tuple[Lock, ...],
        row: type[PaidRow],
        nonce: int = 0,
        length: int = 0,
        at: int = 0,
    ) -> Evidence:
        note = VoucherNote(voucher, self._key.sign(voucher.digest(self._params)), locks)
        self._row = row(note, nonce, length, at, self.ticks)
        self._revealed = 0
        rows: Rows = ((PAID_ROWS + self._params.id, encode(self._row)),)
        if self._other is not None and voucher.amount + voucher.locked > self._deposit:
            rows += self._other.rows()  # what we spend of our earnings must be as durable as that we spent it
        return Evidence(self._note_evidence(note), rows)


class StreamPayee:
    """The payee's end for one session over one direction of a channel."""

    __slots__ = (
        "_backing",
        "_before",
        "_deposit",
        "_earned_key",
        "_nonce",
        "_other",
        "_params",
        "_proof",
        "_row",
        "_signer",
        "_start",
        "_tick",
        "_tick_key",
    )

    def __init__(
        self,
        terms: StreamTerms,
        deposit: int,
        row: EarnedRow | None = None,
        ticks: bytes | None = None,
        *,
        back: bool = False,
    ) -> None:
        """`deposit` is the payer's, final on the ledger; `row` and `ticks` are the journal's for this channel.

        The payee is the channel's opener where it is paid `back`.

        Where the terms begin with more than we hold (a last voucher was lost on its way), `secured` is below 0 until
        the opening evidence brings it. Where they begin with less, `secured` is above 0: refuse such a session.
        """
        begin = way(terms, back)
        self._params, self._deposit, self._start = terms.params, deposit, begin.amount
        self._signer, self._tick, self._backing = Signer(begin.signer), begin.tick_value, begin.backing
        self._other: StreamPayer | None = None
        self._earned_key, self._tick_key = EARNED_ROWS + terms.params.id, TICK_ROWS + terms.params.id
        self._row = row or EarnedRow(VoucherNote(Voucher.over(0, 0), b"", ()))
        self._before = begin.nonce  # vouchers up to this one are of earlier sessions
        held = self._row.note.voucher
        self._proof, self._nonce = self._proof_of(self._row.note.locks), held.nonce
        if ticks is not None:
            nonce, count, preimage = _parse_tick(ticks)
            if nonce == held.nonce:
                self._proof.advance(count, preimage)

    @property
    def secured(self) -> Amount:
        return Amount(self._row.note.voucher.amount - self._start + self._proof.count * self._tick)

    @property
    def ticks(self) -> int:
        return self._proof.count + (self._row.ticks if self._row.note.voucher.nonce > self._before else 0)

    @property
    def capacity(self) -> Amount:
        return Amount(self._funds - self._start)

    def add(self, deposit: int) -> None:
        """The payer's deposit has grown to so much, final on the ledger."""
        self._deposit = max(self._deposit, deposit)

    @property
    def promised(self) -> int:
        """What was promised to us for good, in all sessions (token units): it backs what we promise ourselves."""
        return self._row.note.voucher.amount

    @property
    def _funds(self) -> int:
        """The most that the ledger would pay us by vouchers in full."""
        backing = self._backing if self._other is None else self._other.promised
        return min(self._deposit + backing, MAX_AMOUNT)

    def rows(self) -> Rows:
        """The journal row of the best voucher that we hold; none before the first."""
        return ((self._earned_key, encode(self._row)),) if self._row.note.signature else ()

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        if len(evidence) == _TICK.size and evidence[0] == _TICK_KIND:  # the hot path
            _, nonce, count, preimage = _TICK.unpack(evidence)
            if nonce != self._nonce:
                raise BadVoucher(f"ticks under voucher {nonce}, but {self._nonce} is the last")
            if least is not None:
                raise BadVoucher("a session ends with a voucher for its exact bill, not with ticks")
            return ((self._tick_key, evidence),) if self._proof.advance(count, preimage) else ()
        if evidence[:1] == b"\x02":
            return self._take_voucher(_decode_note(evidence[1:]), least)
        raise BadMessage("evidence of no kind that this rail knows")

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        return None  # readings pay nothing here

    def state(self) -> bytes:
        preimage = self._proof.preimage if self._proof.count else bytes(32)
        return _TICK.pack(_TICK_KIND, self._row.note.voucher.nonce, self._proof.count, preimage)

    def _take_voucher(self, note: VoucherNote, least: int | None) -> Rows:
        held, voucher, locks, ticks = self._row.note, note.voucher, note.locks, self._proof.count
        if note == held and (least is None or (not locks and voucher.amount - self._start == least)):
            return ()  # repeated after a lost link, or folded to the very end already
        if not held.voucher.nonce < voucher.nonce < 2**63:
            raise BadVoucher(f"voucher {voucher.nonce} does not follow {held.voucher.nonce}")
        for lock in locks:
            if lock.tick_value != self._tick or lock.expiry or not 0 < lock.ticks <= MAX_WALK or len(lock.root) != 32:
                raise BadVoucher(f"a lock holds 1..{MAX_WALK} ticks of {self._tick}, and never expires")
        if len(locks) > 1 or (least is not None and locks):
            raise BadVoucher("a session's voucher carries one lock, and none at its end")
        if not voucher.holds(locks):
            raise BadVoucher("the voucher's sums do not follow from its locks")
        worth = voucher.amount - self._start
        due = held.voucher.amount - self._start + ticks * self._tick if least is None else least
        if worth < due or (least is not None and worth > due):
            raise BadVoucher(f"the voucher is worth {worth}, not the {due} due")
        if not 0 <= voucher.amount + voucher.locked <= self._funds:
            raise Unbacked(
                f"the voucher promises more than the channel's deposit and our own vouchers back: {self._funds}"
            )
        self._signer.check(voucher.digest(self._params), note.signature, "the voucher")
        self._row = EarnedRow(note, self._row.ticks + ticks if held.voucher.nonce > self._before else 0)
        self._proof, self._nonce = self._proof_of(locks), voucher.nonce
        return ((self._earned_key, encode(self._row)), (self._tick_key, None))

    @staticmethod
    def _proof_of(locks: tuple[Lock, ...]) -> TickProof:
        return TickProof(locks[0].root, locks[0].ticks) if locks else TickProof(bytes(32), 0)


def pair(payer: StreamPayer, payee: StreamPayee) -> Ends:
    """The two ends of one side of a two-way channel: what either counts as promised for good backs the other."""
    payer._other, payee._other = payee, payer
    return Ends(payer, payee)


def _parse_tick(data: bytes) -> tuple[int, int, bytes]:
    if len(data) != _TICK.size:
        raise BadMessage(f"ticks are {_TICK.size} bytes, not {len(data)}")
    kind, nonce, count, preimage = _TICK.unpack(data)
    if kind != _TICK_KIND or count > MAX_TICKS:
        raise BadMessage("malformed ticks")
    return nonce, count, preimage


def decode_terms(data: bytes) -> StreamTerms:
    """The rail's part of the terms.

    Raises:
        BadMessage: malformed.
    """
    return decode_part(data, StreamTerms)


def decode_offer(data: bytes) -> StreamOffer:
    """The rail's part of an offer.

    Raises:
        BadMessage: malformed.
    """
    return decode_part(data, StreamOffer)


def decode_paid(data: bytes) -> PaidRow:
    """The payer's books from a journal row.

    Raises:
        JournalError: this version never wrote that.
    """
    return decode_row(data, PaidRow, "record of payments")


def decode_earned(data: bytes) -> EarnedRow:
    """The payee's books from a journal row.

    Raises:
        JournalError: this version never wrote that.
    """
    return decode_row(data, EarnedRow, "record of earnings")


def proof_of(row: EarnedRow, ticks: bytes | None) -> tuple[int, bytes]:
    """How many ticks of the row's lock are proven, and the preimage that proves them; (0, b"") for none."""
    if ticks is None:
        return 0, b""
    nonce, count, preimage = _parse_tick(ticks)
    if nonce != row.note.voucher.nonce:
        return 0, b""
    if not row.note.locks:
        raise IllegalEvent("ticks without a lock")
    return count, preimage
