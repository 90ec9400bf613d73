"""What the journal knows, as records: channels, sessions, and what each channel owes or is owed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import msgspec

from penstock.core.channel import ChannelParams, Close, Domain, Lock, Voucher
from penstock.core.codec import decode_row, encode
from penstock.core.effects import Rows
from penstock.core.errors import UsageError
from penstock.core.escrow import EscrowParams, SignedReading
from penstock.core.hops import (
    IN_ROWS,
    NO_VOUCHER,
    OUT_ROWS,
    InLock,
    InRow,
    OutLock,
    OutRow,
    decode_in,
    decode_in_lock,
    decode_out,
    decode_out_lock,
    rests_of,
)
from penstock.core.hops import filing_of as hop_filing
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import Filing, Mined, TokenFacts
from penstock.core.session import SESSION_ROWS, Role, SessionRow, State
from penstock.core.tariff import Tariff
from penstock.core.units import Amount
from penstock.core.watcher import Evidence, worth
from penstock.rails import escrow, hops
from penstock.rails.stream import (
    EARNED_ROWS,
    NAME,
    PAID_ROWS,
    TICK_ROWS,
    EarnedRow,
    PaidRow,
    VoucherNote,
    decode_earned,
    decode_paid,
    decode_terms,
    proof_of,
)

UNHEARD = b"unheard"  # in the place of an acceptance that we never heard of, and that may never have been
CHANNEL_ROWS = b"channel/"
ESCROW_ROWS = b"escrow/"
METER_ROW = b"meter/"  # the secret of the key that signs readings for escrows: this journal's own
SECRET_ROWS = b"secret/"  # by terms: what the seeds of a session's chains are derived from
REACH_ROWS = b"reach/"  # by HOST:PORT: the account of the neighbour that was found there
TOKEN_ROWS = b"token/"  # by contract, then chain: how the sums of its token are written


class Rowed(Protocol):
    """The reading half of a journal."""

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, in the order of their keys."""
        ...


class ChannelRow(msgspec.Struct, frozen=True):
    """A channel that we have a part in. `role` is ours: a consumer opened it and pays, a supplier is paid. In a two-way
    channel both do both. `deposit` is the opener's, `partner_deposit` the partner's (token units); `staked` says that
    we, as its partner, have set out to add to it.

    `close` and `signatures` (opener's, partner's) hold a cooperative close that was signed; while there is one the
    channel takes no more sessions. `closing` says that the ledger has it in its challenge period. `mined` lists our own
    transactions on it. `lost` is what was ours by its vouchers and was not claimed in time (token units). `restored`
    says that all this comes from a backup: as its payer we do not know what we have promised since, and pay through it
    no more; as its payee we may hold less than was promised to us.
    """

    params: ChannelParams
    role: Role
    deposit: Amount
    close: Close | None = None
    opener_signature: bytes = b""
    partner_signature: bytes = b""
    settled: bool = False
    mined: tuple[Mined, ...] = ()
    closing: bool = False
    lost: Amount = Amount(0)
    restored: bool = False
    partner_deposit: Amount = Amount(0)
    staked: bool = False

    @property
    def pays(self) -> bool:
        """Whether we pay through it."""
        return self.role is Role.CONSUMER or self.params.two_way

    @property
    def earns(self) -> bool:
        """Whether it pays us."""
        return self.role is Role.SUPPLIER or self.params.two_way

    @property
    def pot(self) -> Amount:
        """All that was put in."""
        return Amount(self.deposit + self.partner_deposit)

    @property
    def over(self) -> bool:
        """Whether the channel takes no more sessions."""
        return self.close is not None or self.closing or self.settled or (self.restored and self.pays)

    def rows(self) -> Rows:
        """The journal rows that keep this record."""
        return ((CHANNEL_ROWS + self.params.id, encode(self)),)


class EscrowRow(msgspec.Struct, frozen=True):
    """An escrow that we have a part in: a consumer funded it, a supplier is paid from it.

    `session` is the hash of the terms that it pays, empty where it has paid none; `tariff` is what its parameters
    commit to. `funded` says that the ledger had it; `settled` that it has ended there for good. `mined` lists our own
    transactions on it.
    """

    params: EscrowParams
    role: Role
    tariff: Tariff
    session: bytes = b""
    funded: bool = False
    settled: bool = False
    mined: tuple[Mined, ...] = ()

    def rows(self) -> Rows:
        """The journal rows that keep this record."""
        return ((ESCROW_ROWS + self.params.id, encode(self)),)


class TokenRow(msgspec.Struct, frozen=True):
    """How the sums of a ledger's token are written: who knows it needs no ledger to read a price."""

    domain: Domain
    facts: TokenFacts

    def rows(self) -> Rows:
        """The journal rows that keep this record."""
        chain_id = self.domain.chain_id.to_bytes(32, "big")
        return ((TOKEN_ROWS + self.domain.contract + chain_id, encode(self)),)


def one(journal: Rowed, key: bytes) -> bytes | None:
    """The row under exactly this key, if there is one."""
    for found, value in journal.load(key):
        return value if found == key else None
    return None


def channels(journal: Rowed) -> list[ChannelRow]:
    """Every channel in the journal."""
    return list(each_channel(journal))


def each_channel(journal: Rowed) -> Iterator[ChannelRow]:
    """Every channel in the journal, one after the other: a site has a hundred thousand."""
    for key, value in journal.load(CHANNEL_ROWS):
        row = decode_row(value, ChannelRow, "channel")
        # Its ledger is that of all the others, and its id is the row's key: sharing the one spares memory, and taking
        # the other what hashing costs. `penstock journal check` sees that they agree.
        params = msgspec.structs.replace(row.params, domain=_shared(row.params.domain))
        params.__dict__["id"] = key[len(CHANNEL_ROWS) :]
        yield msgspec.structs.replace(row, params=params)


@lru_cache(maxsize=64)
def _shared(domain: Domain) -> Domain:
    return domain


def token_of(journal: Rowed, contract: Address, chain_id: int | None) -> TokenRow | None:
    """How sums are written for this contract; None where we do not know, or on which of several chains it is."""
    rows = [decode_row(value, TokenRow, "token") for _, value in journal.load(TOKEN_ROWS + contract)]
    fitting = [row for row in rows if chain_id in (None, row.domain.chain_id)]
    return fitting[0] if len(fitting) == 1 else None


def escrows(journal: Rowed) -> list[EscrowRow]:
    """Every escrow in the journal."""
    return [decode_row(value, EscrowRow, "escrow") for _, value in journal.load(ESCROW_ROWS)]


def escrow_of(journal: Rowed, id_: bytes) -> EscrowRow | None:
    """The escrow with this id, if we know it."""
    value = one(journal, ESCROW_ROWS + id_)
    return decode_row(value, EscrowRow, "escrow") if value else None


def meter_of(journal: Rowed) -> Key | None:
    """The key that signs readings for the escrows in this journal; None before the first."""
    secret = one(journal, METER_ROW)
    return Key(secret) if secret else None


def reading_of(journal: Rowed, id_: bytes) -> SignedReading | None:
    """The newest reading of an escrow's meter that we hold."""
    value = one(journal, escrow.READING_ROWS + id_)
    return escrow.decode_reading(value) if value else None


def proof_of_lie(journal: Rowed, id_: bytes) -> SignedReading | None:
    """A reading that an escrow's meter signed, and that contradicts the newest that we hold."""
    value = one(journal, escrow.PROOF_ROWS + id_)
    return escrow.decode_reading(value) if value else None


def end_of(journal: Rowed, id_: bytes) -> escrow.EndNote | None:
    """The end of an escrow that its payer signed, if we hold one."""
    value = one(journal, escrow.END_ROWS + id_)
    return escrow.decode_end(value) if value else None


def channel_named(journal: Rowed, name: str) -> ChannelRow:
    """The one channel whose id begins with `name` (hexadecimal, with or without 0x).

    Raises:
        UsageError: none, or several.
    """
    wanted = name.lower().removeprefix("0x").rstrip(".")  # as `channel list` shortens it
    found = [row for row in channels(journal) if row.params.id.hex().startswith(wanted)] if wanted else []
    if len(found) == 1:
        return found[0]
    problem = "several channels begin" if found else "no channel begins"
    raise UsageError(f"{problem} with {name[:70]!r}", "`penstock channel list` shows them")


def channel_of(journal: Rowed, channel: bytes) -> ChannelRow | None:
    """The channel with this id, if we know it."""
    value = one(journal, CHANNEL_ROWS + channel)
    return decode_row(value, ChannelRow, "channel") if value else None


def sessions(journal: Rowed) -> list[SessionRow]:
    """Every session in the journal."""
    return [decode_row(value, SessionRow, "session") for _, value in journal.load(SESSION_ROWS)]


def session_of(journal: Rowed, digest: bytes) -> SessionRow | None:
    """The session under these terms (their hash), if we know it."""
    value = one(journal, SESSION_ROWS + digest)
    return decode_row(value, SessionRow, "session") if value else None


class _Glance(msgspec.Struct):
    """What has to be known of a session to see that nothing is left to do about it: most of them have ended."""

    role: Role
    state: State = State.STREAMING
    unpaid: Amount = Amount(0)


def unfinished(journal: Rowed, role: Role) -> list[SessionRow]:
    """The sessions in which we have this role and that have not ended."""
    return list(_sessions(journal, lambda glance: glance.role is role and glance.state is not State.ENDED))


def owing(journal: Rowed) -> set[bytes]:
    """The channels and escrows (ids) whose sessions left us unpaid."""
    return {account_in(row) for row in _sessions(journal, lambda glance: glance.unpaid > 0)}


def _sessions(journal: Rowed, wanted: Callable[[_Glance], bool]) -> Iterator[SessionRow]:
    for _, value in journal.load(SESSION_ROWS):
        if wanted(decode_row(value, _Glance, "session")):
            yield decode_row(value, SessionRow, "session")


def account_in(row: SessionRow) -> bytes:
    """The id of the channel or escrow that a session's terms name, or the root of its hop lock. 32 bytes."""
    if row.terms.rail == escrow.NAME:
        return escrow.decode_terms(row.terms.rail_terms).params.id
    if row.terms.rail == hops.NAME:
        return hops.decode_terms(row.terms.rail_terms).root
    return decode_terms(row.terms.rail_terms).params.id


def pays_back(row: SessionRow) -> bool:
    """Whether the supplier pays in this session, too."""
    back = decode_terms(row.terms.rail_terms).back if row.terms.rail == NAME else None
    return back is not None and back.tick_value > 0


def paid_of(journal: Rowed, channel: bytes) -> PaidRow | None:
    """Our own promises in a channel that we pay through."""
    value = one(journal, PAID_ROWS + channel)
    return decode_paid(value) if value else None


def earned_of(journal: Rowed, channel: bytes) -> tuple[EarnedRow | None, bytes | None]:
    """The best voucher of a channel that pays us, and the last ticks under it."""
    value = one(journal, EARNED_ROWS + channel)
    return (decode_earned(value) if value else None), one(journal, TICK_ROWS + channel)


def hops_out(journal: Rowed, channel: bytes) -> tuple[OutRow, dict[int, OutLock]]:
    """What we have promised in a channel with hop locks: the last voucher, and the locks under it."""
    row, locks = OutRow(NO_VOUCHER), dict[int, OutLock]()
    for key, value in journal.load(OUT_ROWS + channel):
        number = key[len(OUT_ROWS) + len(channel) :]
        if number:
            locks[int.from_bytes(number, "big")] = decode_out_lock(value)
        else:
            row = decode_out(value)
    return row, locks


def hops_in(journal: Rowed, channel: bytes) -> tuple[InRow, dict[int, InLock]]:
    """What we are promised in a channel with hop locks: the newest voucher, and the locks under it."""
    row, locks = InRow(NO_VOUCHER), dict[int, InLock]()
    for key, value in journal.load(IN_ROWS + channel):
        number = key[len(IN_ROWS) + len(channel) :]
        if number:
            locks[int.from_bytes(number, "big")] = decode_in_lock(value)
        else:
            row = decode_in(value)
    return row, locks


def _proven(journal: Rowed, held: InLock) -> InLock:
    """A lock with all that we can prove of it: what pays a session here is kept with the session's ticks."""
    ticks = None if held.add.onward else one(journal, hops.TICK_ROWS + held.lock.root)
    if ticks is None:
        return held
    count, preimage, _ = hops.proof_in(ticks)
    return msgspec.structs.replace(held, count=count, preimage=preimage) if count > held.count else held


def promised_in(journal: Rowed, channel: bytes) -> Amount:
    """All that we have promised in a channel that we pay through, with locks and what their ends may ask for (token
    units)."""
    if (paid := paid_of(journal, channel)) is not None:
        return Amount(paid.note.voucher.amount + paid.note.voucher.locked)
    out, locks = hops_out(journal, channel)
    return Amount(out.voucher.amount + out.voucher.locked + rests_of(locks))


def last_note(journal: Rowed, row: ChannelRow, back: bool = False) -> VoucherNote | None:
    """The opener's newest voucher, or the partner's (`back`), as we made or hold it; None before the first."""
    if (row.role is Role.CONSUMER) is not back:
        paid = paid_of(journal, row.params.id)
        if paid is None:
            out, held = hops_out(journal, row.params.id)
            return _note(out.voucher, out.signature, [held[number].lock for number in sorted(held)])
        return paid.note if paid.note.signature else None
    earned, _ = earned_of(journal, row.params.id)
    if earned is None:
        in_, locks = hops_in(journal, row.params.id)
        return _note(in_.voucher, in_.signature, [locks[number].lock for number in sorted(locks)])
    return earned.note


def _note(voucher: Voucher, signature: bytes, locks: list[Lock]) -> VoucherNote | None:
    return VoucherNote(voucher, signature, tuple(locks)) if signature else None


def filing_of(journal: Rowed, row: ChannelRow) -> Filing | None:
    """What we can file as the payee of a channel; None where we hold no voucher."""
    if not row.earns:
        return None
    earned, ticks = earned_of(journal, row.params.id)
    if earned is None:
        held, locks = hops_in(journal, row.params.id)
        return hop_filing(held, {n: _proven(journal, one) for n, one in locks.items()}) if held.signature else None
    note = earned.note
    proofs = (proof_of(earned, ticks),) if note.locks else ()
    return Filing(note.voucher, note.signature, note.locks, proofs)


def evidence_of(journal: Rowed, channel: bytes) -> Evidence | None:
    """What we can show of a channel that pays us; None where we hold no voucher."""
    row = channel_of(journal, channel)
    filing = filing_of(journal, row) if row else None
    return Evidence(row.params, row.role is Role.SUPPLIER, filing) if row and filing else None


def share_of(journal: Rowed, row: ChannelRow) -> Amount:
    """What is ours of a channel's pot by all that was promised in it, as far as it is folded (token units).

    Ticks that we revealed and never folded are not counted: nobody but the other side knows whether they arrived.
    """
    own = row.deposit if row.role is Role.CONSUMER else row.partner_deposit
    paid = paid_of(journal, row.params.id) if row.pays else None
    promised = paid.note.voucher.amount if paid else hops_out(journal, row.params.id)[0].voucher.amount
    balance = own + worth(filing_of(journal, row)) - (promised if row.pays else 0)
    return Amount(max(0, min(row.pot, balance)))


def name_of(row: ChannelRow) -> str:
    """The channel's id as people see it."""
    return to_hex(row.params.id)
