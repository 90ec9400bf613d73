"""Looking after a journal: whether its records agree, and what has to be known of one that comes from a backup.

A backup is older than what was signed since. As a payer, nobody can know from it what was promised, and a chain that
it brings back may have been revealed further: so every channel that we pay through takes no more sessions, its sessions
are over, and no secret is kept from which a chain could be derived again. As a payee we hold too little, and what is
missing comes from the payer: by its next session, by taking up one, or by its close. In a two-way channel we are both.
See docs/journal.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from penstock.core.codec import decode_row, encode
from penstock.core.errors import PenstockError
from penstock.core.escrow import end_digest, tariff_hash
from penstock.core.hops import IN_ROWS, OUT_ROWS, decode_in, decode_in_lock, decode_out, decode_out_lock
from penstock.core.identity import Key, check_signed
from penstock.core.messages import Reason
from penstock.core.offer import accept_digest, propose_digest
from penstock.core.ports import Journal
from penstock.core.session import SESSION_ROWS, Role, SessionRow, State
from penstock.core.ticks import TickChain
from penstock.core.units import Instant
from penstock.node import book
from penstock.node.book import (
    CHANNEL_ROWS,
    ESCROW_ROWS,
    METER_ROW,
    REACH_ROWS,
    SECRET_ROWS,
    TOKEN_ROWS,
    ChannelRow,
    EscrowRow,
    Rowed,
    TokenRow,
)
from penstock.node.tasks import durable
from penstock.rails.escrow import END_ROWS, PROOF_ROWS, READING_ROWS, decode_end, decode_reading
from penstock.rails.escrow import NAME as ESCROW
from penstock.rails.hops import END_ROWS as HOP_END_ROWS
from penstock.rails.hops import NAME as HOPS
from penstock.rails.hops import SEED_ROWS, decode_seed, proof_in
from penstock.rails.hops import TICK_ROWS as HOP_TICK_ROWS
from penstock.rails.stream import (
    EARNED_ROWS,
    PAID_ROWS,
    TICK_ROWS,
    EarnedRow,
    PaidRow,
    decode_earned,
    decode_paid,
    proof_of,
)

RETIRED = b"restored"  # in the place of the session that an escrow pays
RESTORED_ROWS = b"restored/"  # by time: when a backup was made the journal


class RestoredRow(msgspec.Struct, frozen=True):
    """A backup became the journal at this time."""

    at: Instant


async def retire(journal: Journal, now: Instant) -> int:
    """Mark every channel of a journal that comes from a backup. Returns how many we pay through and can no longer.

    To be done before a node opens it.
    """
    retired, rows = 0, list[tuple[bytes, bytes | None]]()
    for channel in book.each_channel(journal):
        if not channel.settled:
            retired += channel.pays
            rows += msgspec.structs.replace(channel, restored=True).rows()
    for escrow in book.escrows(journal):
        if escrow.role is Role.CONSUMER and not escrow.session:  # a session that we do not know of may have used it
            retired += not escrow.settled
            rows += msgspec.structs.replace(escrow, session=RETIRED).rows()
    # Its meter's key has signed for escrows that this journal does not know: another is made, and takes no old session.
    rows.append((METER_ROW, None))
    # A session over a two-way channel is one in which we pay, too.
    unfinished = [row for row in book.unfinished(journal, Role.SUPPLIER) if _ends_here(journal, row)]
    for row in book.unfinished(journal, Role.CONSUMER) + unfinished:
        ended = msgspec.structs.replace(row, state=State.ENDED, reason=Reason.OPERATOR)
        rows.append((SESSION_ROWS + row.terms.digest(), encode(ended)))
    rows += [(key, None) for prefix in (SECRET_ROWS, SEED_ROWS) for key, _ in journal.load(prefix)]
    rows.append((RESTORED_ROWS + now.to_bytes(8, "big"), encode(RestoredRow(now))))
    await durable(journal, rows)
    return retired


def _ends_here(journal: Rowed, row: SessionRow) -> bool:
    """Whether a supplier's unfinished session cannot be taken up from a backup."""
    if row.terms.rail == ESCROW:
        return True
    channel = book.channel_of(journal, book.account_in(row))
    return channel is not None and channel.pays


def restored_at(journal: Rowed) -> list[str]:
    """When backups were made the journal (ISO 8601, UTC), the first one first."""
    rows = [decode_row(value, RestoredRow, "note of a restoring") for _, value in journal.load(RESTORED_ROWS)]
    return [datetime.fromtimestamp(row.at / 1_000, UTC).isoformat(timespec="seconds") for row in rows]


def problems(journal: Rowed) -> Iterator[str]:
    """What is wrong with the journal's records, a line for each; none where they all read well and agree.

    Costs some ten thousandths of a second for each channel, for its signatures.

    Raises:
        JournalError: the file cannot be read.
    """
    for key, value in journal.load(b""):
        kind = next((kind for kind in _CHECKS if key.startswith(kind)), None)
        if kind is None:
            yield f"a row of no kind that this version knows: {key[:20]!r}"
            continue
        name = key[len(kind) :]
        try:
            yield from (f"{kind.decode()}{name.hex()[:16]}: {what}" for what in _CHECKS[kind](journal, name, value))
        except PenstockError as error:
            yield f"{kind.decode()}{name.hex()[:16]}: {error}"


def _unknown(value: bytes, type_: type[msgspec.Struct]) -> Iterator[str]:
    """Fields that this version never wrote: readers pass over them, and take what they miss for its default."""
    for name in sorted(set(msgspec.json.decode(value, type=dict[str, msgspec.Raw])) - set(type_.__struct_fields__)):
        yield f"it has a field {name[:40]!r}, which this version does not know"


def _channel(_journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    row = decode_row(value, ChannelRow, "channel")
    yield from _unknown(value, ChannelRow)
    row.params.check()
    if row.params.id != name:
        yield "it is kept under another channel's id"
    if row.close is not None and row.opener_signature:
        check_signed(row.close.digest(row.params), row.opener_signature, row.params.opener_key, "its close")


def _session(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    row = decode_row(value, SessionRow, "session")
    yield from _unknown(value, SessionRow)
    terms, digest = row.terms, row.terms.digest()
    if digest != name:
        yield "it is kept under the hash of other terms"
    check_signed(propose_digest(digest), row.proposed, terms.consumer, "its proposal")
    if len(row.accepted) == 65:  # a consumer may have a word there, or nothing
        check_signed(accept_digest(digest), row.accepted, terms.offer.supplier, "its acceptance")
    if row.receipt is not None:
        if row.consumer_signature:
            check_signed(row.receipt.digest(), row.consumer_signature, terms.consumer, "its receipt")
        if row.supplier_signature:
            check_signed(row.receipt.digest(), row.supplier_signature, terms.offer.supplier, "its receipt")
    account = book.account_in(row)
    channel = book.channel_of(journal, account) or book.escrow_of(journal, account)
    if row.terms.rail == HOPS:
        channel = None  # its lock may be gone by now
    elif channel is None:
        yield "its channel or escrow is not in the journal"
    if channel is not None and channel.role is not row.role:
        yield f"it is a {row.role}'s, over an account that is a {channel.role}'s"
    pays = row.role is Role.CONSUMER or book.pays_back(row)
    if pays and row.state is not State.ENDED and book.one(journal, SECRET_ROWS + name) is None:
        yield "it has not ended, and the secret of its chains is not in the journal"


def _paid(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    row, channel = decode_paid(value), book.channel_of(journal, name)
    yield from _unknown(value, PaidRow)
    if channel is None or not channel.pays:
        yield "it pays through a channel that is not in the journal as ours"
    elif row.note.signature:
        params = channel.params
        signer = params.opener_key if channel.role is Role.CONSUMER else params.partner_key
        check_signed(row.note.voucher.digest(params), row.note.signature, signer, "its voucher")


def _earned(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    decode_earned(value)
    yield from _unknown(value, EarnedRow)
    evidence = book.evidence_of(journal, name)
    if evidence is None:
        yield "its channel is not in the journal as one that pays us"
    else:
        evidence.check()  # the voucher, its locks, and the chain from the last tick up to its root


def _ticks(journal: Rowed, name: bytes, _value: bytes) -> Iterator[str]:
    earned, ticks = book.earned_of(journal, name)
    if earned is None:
        yield "there is no voucher to these ticks"
    elif proof_of(earned, ticks)[0] == 0:
        yield "these ticks are of another voucher than the one in the journal"


def _secret(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    if len(value) != 32:
        yield f"a secret has {len(value)} bytes, not 32"
    if book.session_of(journal, name) is None:
        yield "its session is not in the journal"


def _escrow(_journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    row = decode_row(value, EscrowRow, "escrow")
    yield from _unknown(value, EscrowRow)
    row.params.check()
    if row.params.id != name:
        yield "it is kept under another escrow's id"
    if tariff_hash(row.tariff) != row.params.tariff:
        yield "its tariff is not the one that its deposit commits to"


def _reading(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    signed, escrow = decode_reading(value), book.escrow_of(journal, name)
    if escrow is None:
        yield "its escrow is not in the journal"
        return
    signed.reading.due(escrow.tariff, escrow.params.deposit)
    check_signed(signed.reading.digest(escrow.params), signed.signature, escrow.params.meter, "the reading")


def _end(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    note, escrow = decode_end(value), book.escrow_of(journal, name)
    if escrow is None:
        yield "its escrow is not in the journal"
        return
    check_signed(end_digest(escrow.params, note.amount), note.signature, escrow.params.payer_key, "the end")


def _secret_key(_journal: Rowed, _name: bytes, value: bytes) -> Iterator[str]:
    Key(value)
    yield from ()


def _lock_out(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    row = book.channel_of(journal, name[:32])
    if row is None or not row.pays:
        yield "it pays through a channel that is not in the journal as ours"
    elif len(name) > 32:
        decode_out_lock(value).lock.check()
    elif (out := decode_out(value)).signature:
        check_signed(out.voucher.digest(row.params), out.signature, row.params.opener_key, "its voucher")


def _lock_in(journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    if len(name) > 32:
        decode_in_lock(value).lock.check()
        return
    decode_in(value)
    evidence = book.evidence_of(journal, name)
    if evidence is None:
        yield "its channel is not in the journal as one that pays us"
    else:
        evidence.check()


def _seed(_journal: Rowed, name: bytes, value: bytes) -> Iterator[str]:
    row = decode_seed(value)
    if TickChain(row.seed, row.ticks).root != name:
        yield "it is not the seed of the root that it is kept under"


def _hop_proof(_journal: Rowed, _name: bytes, value: bytes) -> Iterator[str]:
    proof_in(value)
    yield from ()


def _address(_journal: Rowed, _name: bytes, value: bytes) -> Iterator[str]:
    if len(value) != 20:
        yield f"an account has {len(value)} bytes, not 20"


def _token(_journal: Rowed, _name: bytes, value: bytes) -> Iterator[str]:
    decode_row(value, TokenRow, "token")
    yield from ()


def _restored(_journal: Rowed, _name: bytes, value: bytes) -> Iterator[str]:
    decode_row(value, RestoredRow, "note of a restoring")
    yield from ()


_CHECKS: dict[bytes, Callable[[Rowed, bytes, bytes], Iterator[str]]] = {
    CHANNEL_ROWS: _channel,
    SESSION_ROWS: _session,
    PAID_ROWS: _paid,
    EARNED_ROWS: _earned,
    TICK_ROWS: _ticks,
    SECRET_ROWS: _secret,
    ESCROW_ROWS: _escrow,
    READING_ROWS: _reading,
    PROOF_ROWS: _reading,
    END_ROWS: _end,
    METER_ROW: _secret_key,
    TOKEN_ROWS: _token,
    OUT_ROWS: _lock_out,
    IN_ROWS: _lock_in,
    SEED_ROWS: _seed,
    HOP_END_ROWS: _hop_proof,
    HOP_TICK_ROWS: _hop_proof,
    REACH_ROWS: _address,
    RESTORED_ROWS: _restored,
}
