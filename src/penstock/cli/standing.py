"""`penstock channel list` and `show`: how channels stand, by the journal and by the ledger, and what is at risk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.node import ConfigFile, Contract, Url
from penstock.cli.output import AsJson, answer

if TYPE_CHECKING:
    from penstock.cli.config import LedgerSection
    from penstock.core.ports import ChannelState, Filed, Mined, TokenFacts
    from penstock.node.book import ChannelRow
    from penstock.storage.sqlite import SqliteJournal

    Seen = tuple[ChannelState, Filed, TokenFacts, int]  # the last is the ledger's time, in seconds

Name = Annotated[str, typer.Argument(help="The channel's id, or how it begins.", show_default=False)]


def list_(config: ConfigFile = None, url: Url = None, contract: Contract = None, as_json: AsJson = False) -> None:
    """List the channels in this node's journal, and what is at risk in each.

    At risk is what we would lose if nobody answered a close: in an open channel all that it owes us, and there is a
    challenge period to answer from the moment somebody closes it. Where a ledger is configured it is asked what it has.

    \b
    Example:
        penstock channel list --url http://127.0.0.1:8545
    """
    from penstock.cli.node import read_journal, settings
    from penstock.cli.output import say
    from penstock.core.errors import LedgerError
    from penstock.node import book

    journal = read_journal()
    rows = book.channels(journal)
    documents = [_document(journal, row) for row in rows]
    section = settings(config, url, contract, None, None, None).ledger
    if section.url and rows:
        try:
            for row, document, seen in zip(rows, documents, _ask(section, rows), strict=True):
                document |= _seen(journal, row, seen)
        except LedgerError as error:
            say(f"penstock: the ledger says nothing, the journal alone speaks: {error.line()}")
    lines = [
        f"{one['channel'][:14]}...  {one['role']:8}  deposit {one['deposit']:>11,}  "
        f"vouchers {one['worth']:>11,}  {_back(one)}{one['status']}{_risk(one)}"
        for one in documents
    ]
    answer({"channels": documents}, lines or ["no channels yet"], as_json=as_json)


def show(
    channel: Name, config: ConfigFile = None, url: Url = None, contract: Contract = None, as_json: AsJson = False
) -> None:
    """Show one channel: what the journal knows and, where a ledger is configured, what the ledger says.

    \b
    Example:
        penstock channel show 0x0fd512 --url http://127.0.0.1:8545 --contract 0x...
    """
    from penstock.cli.node import read_journal, settings
    from penstock.core.identity import to_hex
    from penstock.node import book

    journal = read_journal()
    row = book.channel_named(journal, channel)
    document = _document(journal, row)
    params = row.params
    document |= {
        "opener": to_hex(params.opener),
        "partner": to_hex(params.partner),
        "opener_key": to_hex(params.opener_key),
        "partner_key": to_hex(params.partner_key),
        "two_way": params.two_way,
        "counter": params.counter,
        "chain_id": params.domain.chain_id,
        "contract": to_hex(params.domain.contract),
        "token": to_hex(params.domain.token),
        "transactions": mined_rows(row.mined),
    }
    section = settings(config, url, contract, None, None, None).ledger
    if section.url:
        (seen,) = _ask(section, [row])
        state, _, token, _ = seen
        document |= _seen(journal, row, seen)
        document |= {
            "symbol": token.symbol,
            "ledger": {
                "status": state.status,
                "opener_deposit": state.opener_deposit,
                "partner_deposit": state.partner_deposit,
                "closes_at": state.closes_at,
            },
        }
    answer(document, [f"{name:12} {value}" for name, value in document.items()], as_json=as_json)


def _ask(section: LedgerSection, rows: list[ChannelRow]) -> list[Seen]:
    """What the ledger has of these channels, each with its own contract's token."""
    import msgspec

    from penstock.cli.node import ledger_at, run
    from penstock.core.session import Role

    anywhere = msgspec.structs.replace(section, contract=None)

    async def ask(_asked: asyncio.Event) -> list[Seen]:
        found: dict[bytes, Seen] = {}
        for domain in {row.params.domain for row in rows}:
            own = [row for row in rows if row.params.domain == domain]
            async with ledger_at(own_contract(anywhere, own[0])) as (ledger, token):
                now = await ledger.now()
                for row in own:
                    state = await ledger.channel(row.params)
                    filed = await ledger.filed(row.params, row.role is Role.SUPPLIER)
                    found[row.params.id] = state, filed, token, now
        return [found[row.params.id] for row in rows]

    return run(ask)


def _seen(journal: SqliteJournal, row: ChannelRow, seen: Seen) -> dict[str, Any]:
    """What the ledger's view makes of a channel."""
    from penstock.core.watcher import at_risk
    from penstock.node import book

    state, filed, _, now = seen
    found: dict[str, Any] = {
        "at_risk": at_risk(book.evidence_of(journal, row.params.id), state, filed),
        "until": state.closes_at or None,
        "over": 0 < state.closes_at <= now,
    }
    if state.status in ("closing", "settled"):
        found["status"] = state.status
    elif not row.over and not row.deposit:  # an opening that we have not seen ourselves
        found["status"] = "open" if state.status == "open" else "waiting to be opened"
    if state.status in ("open", "closing"):
        found["deposit"] = state.opener_deposit
    return found


def _back(document: dict[str, Any]) -> str:
    """What was paid back, where it was, as people read it."""
    return f"back {document['paid_back']:>11,}  " if document["paid_back"] else ""


def _risk(document: dict[str, Any]) -> str:
    """What is at risk and until when, as people read it."""
    if document["lost"]:
        return f"  LOST {document['lost']:,}: nobody answered in time"
    if not document["at_risk"]:
        return ""
    if document["over"]:
        return f"  {document['at_risk']:,} LOST, it seems: the challenge was over at {utc(document['until'])}"
    if document["until"]:
        return f"  AT RISK {document['at_risk']:,} until {utc(document['until'])}: file, or start `penstock watch`"
    return f"  {document['at_risk']:,} to be claimed within {document['period_s']:,} s of a close"


def _document(journal: SqliteJournal, row: ChannelRow) -> dict[str, Any]:
    from penstock.core.identity import to_hex
    from penstock.core.session import Role
    from penstock.core.watcher import worth
    from penstock.node import book

    note, back = book.last_note(journal, row), book.last_note(journal, row, back=True)
    held = worth(book.filing_of(journal, row))
    consumes = row.role is Role.CONSUMER
    promised = note.voucher.amount + note.voucher.locked if note else 0
    if row.settled:
        status = "settled"
    elif row.close is not None:
        status = "signed off"
    elif row.closing:
        status = "closing"
    else:
        status = "open" if row.deposit else "opening"
    peer = row.params.partner if consumes else row.params.opener
    return {
        "channel": book.name_of(row),
        "role": str(row.role),
        "peer": to_hex(peer),
        "deposit": row.deposit,
        "worth": held if not consumes else (note.voucher.amount if note else 0),
        "paid_back": held if consumes else (back.voucher.amount if back else 0),
        "share": book.share_of(journal, row),
        "locked": note.voucher.locked if note else 0,
        "promised": promised,
        "nonce": note.voucher.nonce if note else 0,
        "status": status,
        "at_risk": (min(held, row.pot) if row.params.two_way else held) if status != "settled" else 0,
        "until": None,
        "over": False,
        "lost": row.lost,
        "period_s": row.params.period,
    }


def own_contract(section: LedgerSection, row: ChannelRow) -> LedgerSection:
    """The ledger section with the channel's own contract and chain, where it names none."""
    import msgspec

    from penstock.core.identity import to_hex

    return msgspec.structs.replace(
        section,
        contract=section.contract or to_hex(row.params.domain.contract),
        chain_id=section.chain_id or row.params.domain.chain_id,
    )


def mined_rows(rows: Any) -> list[dict[str, Any]]:
    """Transactions as JSON."""
    from penstock.core.identity import to_hex

    found: list[Mined] = list(rows)
    return [{"what": one.what, "hash": to_hex(one.hash), "gas": one.gas, "block": one.block} for one in found]


def utc(seconds: int) -> str:
    """A time as people read it."""
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
