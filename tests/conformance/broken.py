"""Rails with one defect each, such as a hurried author might make: for each property one that does not have it.

What is not said here is the honest rail's, on the same chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.core.channel import SignedOpening, Voucher
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.escrow import MeterReading, SignedReading
from penstock.core.identity import Address, Digest, Key, keccak
from penstock.core.rail import Evidence
from penstock.core.session import Role
from penstock.core.tariff import Bill
from penstock.core.units import Amount, Instant, Quantity
from penstock.rails.escrow import READING_ROWS, EscrowPayee, EscrowPayer, decode_reading
from penstock.rails.hops import HopPayee
from penstock.rails.stream import EarnedRow, StreamPayee, StreamPayer, VoucherNote, decode_earned
from penstock.testing.rail import Books, Coded, RailSetup, Signed

from .escrow import CONSUMER_KEY, METER, EscrowFunds, EscrowSetup
from .ground import STRANGER, SUPPLIER, Ground
from .hops import Channel, HopFunds, HopSetup
from .stream import StreamBothFunds, StreamFunds, StreamSetup

FOREVER, FEE = 2**40, 100
NO_SIGNATURE = b"\x01" * 64 + b"\x1b"
NO_VOUCHER = EarnedRow(VoucherNote(Voucher.over(0, 0), b"", ()))


class Broken(NamedTuple):
    """A rail, which property it lacks, and a part of what the kit must say of it."""

    number: int
    what: str
    setup: Callable[[Ground], RailSetup]
    says: str


def _stream(**parts: Any) -> type[StreamSetup]:
    """The stream rail with another `payer`, `payee` or `funds`."""
    return type("Stream", (StreamSetup,), parts)


def _escrow(**parts: Any) -> type[EscrowSetup]:
    """The escrow with another `payer`, `payee` or `funds`."""
    return type("Escrow", (EscrowSetup,), parts)


def _hops(**parts: Any) -> type[HopSetup]:
    """Payments over a hub with another `payer`, `payee` or `funds`."""
    return type("Hops", (HopSetup,), parts)


class _Believing:
    """A signer whose signatures nobody looks at."""

    def check(self, digest: Digest, signature: bytes, what: str) -> None:
        pass


# 1: what is paid out is not what was paid in


class _FeeFunds(StreamFunds):
    """Whoever carries its settlement to the chain keeps something of the payee's."""

    async def collect(self, role: Role) -> None:
        await super().collect(role)
        params = msgspec.structs.replace(self.params, opener=SUPPLIER.address, partner=STRANGER.address)
        opening = SignedOpening(1, FEE, FOREVER)
        signature = SUPPLIER.sign(opening.digest(params))
        await self._ledger.open_signed(STRANGER, params, opening, signature)


# 2: a claim falls


class _LastWordPayee(StreamPayee):
    """Holds whatever voucher came last, as if the last were the newest."""

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        if least is None and evidence[:1] == b"\x02":
            self._row, self._proof, self._nonce = NO_VOUCHER, self._proof_of(()), 0
        return super().take(evidence, least)


class _LastReadingPayer(EscrowPayer):
    """Believes whatever reading came last, as if the last were the newest."""

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        self._signed = None
        return super().metered(evidence, bill, total, at, last)


# 3: more is at stake than is declared


class _TrustingPayee(StreamPayee):
    """Counts what is locked as if it were secured already."""

    @property
    def secured(self) -> Amount:
        voucher = self._row.note.voucher
        return Amount(super().secured + max(0, voucher.locked - self._proof.count * self._tick))


class _CarefreePayee(EscrowPayee):
    """Counts as secured what its meter shows, and lets it sign no more than the last reading."""

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        if last:
            return super().metered(bill, total, at, last)
        self.secured = bill.due(total)
        return Evidence(b"")


class _CarefreePayer(EscrowPayer):
    """Asks for no signature but the last."""

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        return super().metered(evidence, bill, total, at, last) if evidence else ()


# 4: what comes again counts again


class _AddingPayee(StreamPayee):
    """Adds the tick that it is shown, whether or not it has seen it."""

    __slots__ = ("_more",)

    @property
    def secured(self) -> Amount:
        return Amount(super().secured + getattr(self, "_more", 0))

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        rows = super().take(evidence, least)
        if not rows:
            self._more = getattr(self, "_more", 0) + self._tick
        return rows


class _AddingPayer(EscrowPayer):
    """Adds what a reading says, whether or not it has seen it."""

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        rows = super().metered(evidence, bill, total, at, last)
        if not rows:
            self.paid = Amount(self.paid + 1)
        return rows


class _AddingHopPayee(HopPayee):
    """Adds the tick that it is shown, whether or not it has seen it."""

    __slots__ = ("_more",)

    @property
    def secured(self) -> Amount:
        return Amount(super().secured + getattr(self, "_more", 0))

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        rows = super().take(evidence, least)
        if not rows and evidence:
            self._more = getattr(self, "_more", 0) + self._tick
        return rows


# 5: what was changed is taken


class _BelievingPayee(StreamPayee):
    """Checks no signature."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._signer = _Believing()  # type: ignore[assignment]  # the defect


class _BelievingPayer(EscrowPayer):
    """Checks no signature."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._signer = _Believing()  # type: ignore[assignment]  # the defect


# 6: nobody answers


class _SleepingStream(StreamFunds):
    async def answer(self, role: Role, books: Books) -> None:
        """Sleeps through the challenge."""


class _SleepingEscrow(EscrowFunds):
    async def answer(self, role: Role, books: Books) -> None:
        """Sleeps through the window."""


class _SleepingHops(HopFunds):
    async def answer(self, role: Role, books: Books) -> None:
        """Sleeps through the challenge, and so do the hubs."""

    async def _close(self, channel: Channel, key: Key, *, filed: bool) -> None:
        if filed or (await self._ledger.channel(channel.params)).status == "open":
            await self._ledger.close(key, channel.params, None)


# 7: what is kept does not suffice to get out


class _ForgetfulPayee(StreamPayee):
    """Keeps the voucher, and not the signature under it."""

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        return tuple((key, _unsigned_voucher(key, value)) for key, value in super().take(evidence, least))


def _unsigned_voucher(key: bytes, value: bytes | None) -> bytes | None:
    if value is None or not key.startswith(b"earned/"):
        return value
    row = decode_earned(value)
    note = msgspec.structs.replace(row.note, signature=NO_SIGNATURE)
    return encode(msgspec.structs.replace(row, note=note))


class _ForgetfulMeter(EscrowPayee):
    """Keeps the reading, and not the signature under it."""

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        made = super().metered(bill, total, at, last)
        assert made is not None
        rows = tuple((key, None if value is None else _unsigned_reading(value)) for key, value in made.rows)
        return Evidence(made.data, rows)


def _unsigned_reading(value: bytes) -> bytes:
    signed = decode_reading(value)
    return encode(msgspec.structs.replace(signed, signature=NO_SIGNATURE))


# 8: a crash changes the result


class _CarelessPayer(StreamPayer):
    """Keeps its first voucher alone."""

    def fold(self) -> list[Evidence]:
        return [Evidence(one.data) for one in super().fold()]

    def pay(self, upto: int) -> list[Evidence]:
        return [Evidence(one.data) for one in super().pay(upto)]


class _AnewPayee(EscrowPayee):
    """Counts its meter's readings from one when it is taken up again."""

    _count = 0

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        self._count += 1
        reading = MeterReading(self._count, at, total, bill.turns, last)
        signed = SignedReading(reading, self._meter.sign(reading.digest(self._params)))
        self.secured = reading.due(self._tariff, self._params.deposit)
        return Evidence(encode(signed), ((READING_ROWS + self._params.id, encode(signed)),))


# 9: something means one thing here and another there


class _LossyStream(StreamSetup):
    """Its payer's row comes back without the ticks that were folded."""

    @property
    def coded(self) -> Sequence[Coded]:
        return [_lossy(one) if one.name == "payer's row" else one for one in super().coded]


def _lossy(one: Coded) -> Coded:
    return one._replace(decode=lambda data: msgspec.structs.replace(one.decode(data), offset=0))  # type: ignore[type-var]  # a row


class _OtherDigestStream(StreamSetup):
    """Signs vouchers over a digest of its own."""

    @property
    def signed(self) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
        return _resigned(super().signed, "voucher in a challenge", _OTHER)


class _OtherDigestEscrow(EscrowSetup):
    """Signs readings over a digest of its own."""

    @property
    def signed(self) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
        return _resigned(super().signed, "reading that is filed", _OTHER)


_OTHER = b"another version"


def _resigned(
    signed: Mapping[str, Callable[[], Awaitable[Signed]]], name: str, version: bytes
) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
    async def make() -> Signed:
        thing = await signed[name]()
        keys: dict[Address, Key] = {key.address: key for key in (CONSUMER_KEY, METER)}

        def digest(fields: dict[str, Any]) -> Digest:
            return Digest(keccak(version + thing.digest(fields)))

        return thing._replace(digest=digest, signature=keys[thing.signer].sign(digest(thing.fields)))

    return {name: make}


# 10: a flow that turns round is not paid both ways


class _SleepingBoth(StreamBothFunds):
    async def answer(self, role: Role, books: Books) -> None:
        """Sleeps through the challenge, whichever side it is."""


BROKEN: tuple[Broken, ...] = (
    Broken(1, "takes a fee", _stream(funds=_FeeFunds), "the receipt says"),
    Broken(2, "believes the last voucher", _stream(payee=_LastWordPayee), "out of order"),
    Broken(2, "believes the last reading", _escrow(payer=_LastReadingPayer), "out of order"),
    Broken(3, "counts what is locked", _stream(payee=_TrustingPayee), "at stake"),
    Broken(3, "counts what is not signed", _escrow(payer=_CarefreePayer, payee=_CarefreePayee), "not durable"),
    Broken(4, "adds ticks", _stream(payee=_AddingPayee), "came again"),
    Broken(4, "adds readings", _escrow(payer=_AddingPayer), "came again"),
    Broken(4, "adds ticks of a lock", _hops(payee=_AddingHopPayee), "came again"),
    Broken(5, "checks no voucher", _stream(payee=_BelievingPayee), "was taken"),
    Broken(5, "checks no reading", _escrow(payer=_BelievingPayer), "was taken"),
    Broken(6, "sleeps through the challenge", _stream(funds=_SleepingStream), "gets out with"),
    Broken(6, "sleeps through the window", _escrow(funds=_SleepingEscrow), "gets out with"),
    Broken(6, "sleeps, hub and supplier", _hops(funds=_SleepingHops), "gets out with"),
    Broken(7, "keeps no voucher's signature", _stream(payee=_ForgetfulPayee), "cannot leave"),
    Broken(7, "keeps no meter's signature", _escrow(payee=_ForgetfulMeter), "cannot leave"),
    Broken(8, "keeps its first voucher alone", _stream(payer=_CarelessPayer), "after a crash"),
    Broken(8, "counts readings anew", _escrow(payee=_AnewPayee), "after a crash"),
    Broken(9, "forgets a field", _LossyStream, "decodes to another"),
    Broken(9, "signs another digest of a voucher", _OtherDigestStream, "is refused as it was signed"),
    Broken(9, "signs another digest of a reading", _OtherDigestEscrow, "is refused as it was signed"),
    Broken(10, "sleeps, whoever leaves", _stream(both_funds=_SleepingBoth), "the ledger|are its own"),
)
