"""`penstock channel export`: a channel's newest voucher, as any wallet library can check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.output import AsJson, answer
from penstock.cli.standing import Name

if TYPE_CHECKING:
    from penstock.core.identity import Address
    from penstock.node.book import ChannelRow
    from penstock.rails.stream import VoucherNote
    from penstock.storage.sqlite import SqliteJournal


def export(channel: Name, as_json: AsJson = False) -> None:
    """Print the channel's newest voucher as EIP-712 typed data with its signature; of a two-way channel, both.

    Any wallet library can check it: the object `typed_data` is what eth-account's `encode_typed_data(full_message=...)`
    and ethers' `verifyTypedData` take; whoever holds the voucher as its payee can file it with the contract.

    \b
    Example:
        penstock channel export 0x0fd512 --json > voucher.json
    """
    from penstock.cli.node import read_journal
    from penstock.core.errors import UsageError
    from penstock.core.session import Role
    from penstock.node import book

    journal = read_journal()
    row = book.channel_named(journal, channel)
    note, back = book.last_note(journal, row), book.last_note(journal, row, back=True)
    if note is None:
        raise UsageError("no voucher has been signed in this channel yet", "it comes with the first session")
    supplies, proofs = row.role is Role.SUPPLIER, _proofs(journal, row)
    document: dict[str, Any] = {
        "channel": book.name_of(row),
        **_voucher(row, note, row.params.opener_key, proofs if supplies else []),
        "back": _voucher(row, back, row.params.partner_key, [] if supplies else proofs) if back else None,
    }
    answer(document, [f"{name:10} {value}" for name, value in document.items()], as_json=as_json)


def _voucher(row: ChannelRow, note: VoucherNote, signer: Address, proofs: list[dict[str, Any]]) -> dict[str, Any]:
    """One direction's voucher, with the ticks that we can prove where it pays us."""
    from penstock.core.identity import to_hex

    return {
        "signer": to_hex(signer),
        "digest": to_hex(note.voucher.digest(row.params)),
        "signature": to_hex(note.signature),
        "typed_data": typed_data(row, note),
        "locks": [
            {"root": to_hex(lock.root), "tick_value": lock.tick_value, "ticks": lock.ticks, "expiry": lock.expiry}
            for lock in note.locks
        ],
        "proofs": proofs,
    }


def _proofs(journal: SqliteJournal, row: ChannelRow) -> list[dict[str, Any]]:
    from penstock.core.identity import to_hex
    from penstock.node import book

    filing = book.filing_of(journal, row)
    proofs = filing.proofs if filing else ()
    return [{"count": count, "preimage": to_hex(preimage)} for count, preimage in proofs if count]


def typed_data(row: ChannelRow, note: VoucherNote) -> dict[str, Any]:
    """The voucher as the JSON of EIP-712 (`eth_signTypedData_v4`)."""
    from penstock.core.channel import DOMAIN_NAME, DOMAIN_TYPE, DOMAIN_VERSION, VOUCHER_TYPE
    from penstock.core.identity import to_hex

    def fields(encoded: str) -> list[dict[str, str]]:
        inside = encoded[encoded.index("(") + 1 : -1]
        return [dict(zip(("type", "name"), field.split(" "), strict=True)) for field in inside.split(",")]

    domain, voucher = row.params.domain, note.voucher
    return {
        "types": {"EIP712Domain": fields(DOMAIN_TYPE), "Voucher": fields(VOUCHER_TYPE)},
        "primaryType": "Voucher",
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": domain.chain_id,
            "verifyingContract": to_hex(domain.contract),
        },
        "message": {
            "channel": to_hex(row.params.id),
            "nonce": voucher.nonce,
            "amount": voucher.amount,
            "locked": voucher.locked,
            "lockedUntil": voucher.locked_until,
            "locksRoot": to_hex(voucher.locks_root),
        },
    }
