"""`penstock escrow`: how escrows stand, by the journal and by the ledger, and what ends them there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.node import ChainId, ConfigFile, Escrow, KeyName, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile
from penstock.cli.standing import mined_rows, utc

if TYPE_CHECKING:
    from penstock.cli.config import LedgerSection
    from penstock.core.identity import Key
    from penstock.core.ports import EscrowLedger, EscrowState, Journal, Mined, TokenFacts
    from penstock.node.book import EscrowRow, Rowed

    Act = Callable[[Journal, EscrowLedger, Key, EscrowRow], Awaitable[tuple[list[Mined], EscrowState]]]
    Seen = tuple[EscrowState, TokenFacts, int]  # the last is the ledger's time, in seconds

app = typer.Typer(help="Look at escrows, and end them on the ledger.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The escrow's id, or how it begins.", show_default=False)]


@app.command("list")
def list_(config: ConfigFile = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the escrows in this node's journal. Where a ledger is configured it is asked what it has.

    \b
    Example:
        penstock escrow list --url http://127.0.0.1:8545
    """
    from penstock.cli.node import read_journal, settings
    from penstock.cli.output import say
    from penstock.core.errors import LedgerError
    from penstock.node import book

    journal = read_journal()
    rows = book.escrows(journal)
    documents = [_document(journal, row) for row in rows]
    section = settings(config, url, None, None, None, None).ledger
    if section.url and rows:
        try:
            for row, document, seen in zip(rows, documents, _ask(section, rows), strict=True):
                document |= _seen(row, seen)
        except LedgerError as error:
            say(f"penstock: the ledger says nothing, the journal alone speaks: {error.line()}")
    lines = [
        f"{one['escrow'][:14]}...  {one['role']:8}  deposit {one['deposit']:>11,}  worth {one['worth']:>11,}  "
        f"{one['status']}{_next(one)}"
        for one in documents
    ]
    answer({"escrows": documents}, lines or ["no escrows yet"], as_json=as_json)


@app.command()
def show(escrow: Name, config: ConfigFile = None, url: Url = None, as_json: AsJson = False) -> None:
    """Show one escrow: what the journal knows and, where a ledger is configured, what the ledger says.

    \b
    Example:
        penstock escrow show 0x0fd512 --url http://127.0.0.1:8545
    """
    from penstock.cli.node import read_journal, settings
    from penstock.core.identity import to_hex

    journal = read_journal()
    row = _named(journal, escrow)
    params = row.params
    document = _document(journal, row) | {
        "payer": to_hex(params.payer),
        "payee": to_hex(params.payee),
        "payer_key": to_hex(params.payer_key),
        "payee_key": to_hex(params.payee_key),
        "meter": to_hex(params.meter),
        "counter": params.counter,
        "chain_id": params.domain.chain_id,
        "contract": to_hex(params.domain.contract),
        "token": to_hex(params.domain.token),
        "session": to_hex(row.session) if row.session else None,
        "transactions": mined_rows(row.mined),
    }
    section = settings(config, url, None, None, None, None).ledger
    if section.url:
        (seen,) = _ask(section, [row])
        state, token, _ = seen
        document |= _seen(row, seen)
        document |= {
            "symbol": token.symbol,
            "ledger": {
                "status": state.status,
                "claimed": state.claimed,
                "drawn": state.drawn,
                "matures_at": state.matures_at,
                "contested": state.contested,
            },
        }
    answer(document, [f"{name:12} {value}" for name, value in document.items()], as_json=as_json)


@app.command()
def settle(
    escrow: Name,
    config: ConfigFile = None,
    url: Url = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Claim what we hold of an escrow, and pay out what can be paid.

    A supplier files the end that the consumer signed, or the meter's last reading; what that claims is paid once the
    window is over. A consumer gets the rest back after the last claim, or after the deadline.

    \b
    Example:
        penstock escrow settle 0x0fd512 --key car --url http://127.0.0.1:8545
    """
    from penstock.node import escrow_ending

    _act(escrow, escrow_ending.settle, config, url, chain_id, key, passphrase_file, as_json)


@app.command()
def contest(
    escrow: Name,
    config: ConfigFile = None,
    url: Url = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Contest a claim by two readings of the meter's that contradict each other: ours, and what was filed.

    The lesser of the two counts then, and no reading is taken any more.

    \b
    Example:
        penstock escrow contest 0x0fd512 --key car --url http://127.0.0.1:8545
    """
    from penstock.node import escrow_ending

    _act(escrow, escrow_ending.contest, config, url, chain_id, key, passphrase_file, as_json)


@app.command()
def withdraw(
    amount: Annotated[
        str | None, typer.Argument(help="How much, in whole tokens; left out: everything.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    url: Url = None,
    contract: Escrow = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Move what escrows have brought, or given back, from the contract's balance to the key's wallet.

    \b
    Example:
        penstock escrow withdraw --key pole --url http://127.0.0.1:8545 --escrow 0x...
    """
    from penstock.cli.node import LateEscrows, settings
    from penstock.cli.withdrawal import take_home

    read = settings(config, url, None, chain_id, key, passphrase_file, escrow=contract)
    take_home(read, LateEscrows(read.ledger), amount, as_json=as_json)


def _act(
    escrow: str,
    act: Act,
    config: Path | None,
    url: str | None,
    chain_id: int | None,
    key: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Send transactions for an escrow and keep what came of them."""
    from penstock.cli.node import LateEscrows, journal_open, open_key, run, settings

    read = settings(config, url, None, chain_id, key, passphrase_file)

    async def work(_asked: asyncio.Event) -> dict[str, Any]:
        async with journal_open() as journal:
            row = _named(journal, escrow)
            signer = open_key(read.key)
            late = LateEscrows(_at(read.ledger, row))
            try:
                mined, state = await act(journal, await late(), signer, row)
            finally:
                await late.disconnect()
        return {
            "escrow": "0x" + row.params.id.hex(),
            "status": state.status,
            "claimed": state.claimed,
            "drawn": state.drawn,
            "matures_at": state.matures_at,
            "transactions": mined_rows(mined),
        }

    document = run(work)
    lines = [f"{one['what']}: {one['gas']:,} gas, {one['hash']}" for one in document["transactions"]]
    lines.append(f"the escrow is {document['status']}{_waits(document)}")
    answer(document, lines, as_json=as_json)


def _named(journal: Rowed, name: str) -> EscrowRow:
    """The one escrow whose id begins with `name` (hexadecimal, with or without 0x).

    Raises:
        UsageError: none, or several.
    """
    from penstock.core.errors import UsageError
    from penstock.node import book

    wanted = name.lower().removeprefix("0x").rstrip(".")  # as `escrow list` shortens it
    found = [row for row in book.escrows(journal) if row.params.id.hex().startswith(wanted)] if wanted else []
    if len(found) == 1:
        return found[0]
    problem = "several escrows begin" if found else "no escrow begins"
    raise UsageError(f"{problem} with {name[:70]!r}", "`penstock escrow list` shows them")


def _document(journal: Rowed, row: EscrowRow) -> dict[str, Any]:
    from penstock.core.errors import BadTerms
    from penstock.core.identity import to_hex
    from penstock.core.session import Role
    from penstock.node import book

    params = row.params
    end, signed = book.end_of(journal, params.id), book.reading_of(journal, params.id)
    try:
        due = signed.reading.due(row.tariff, params.deposit) if signed is not None else 0
    except BadTerms:  # kept by another version
        due = 0
    return {
        "escrow": "0x" + params.id.hex(),
        "role": str(row.role),
        "peer": to_hex(params.payee if row.role is Role.CONSUMER else params.payer),
        "deposit": params.deposit,
        "worth": end.amount if end is not None else due,
        "evidence": "end" if end is not None else "reading" if signed is not None else None,
        "deadline": params.deadline,
        "window_s": params.window,
        "status": "settled" if row.settled else "funded" if row.funded else "funding",
    }


def _ask(section: LedgerSection, rows: list[EscrowRow]) -> list[Seen]:
    """What the ledger has of these escrows, each with its own contract's token."""
    from penstock.cli.node import LateEscrows, run

    async def ask(_asked: asyncio.Event) -> list[Seen]:
        found: dict[bytes, Seen] = {}
        for domain in {row.params.domain for row in rows}:
            own = [row for row in rows if row.params.domain == domain]
            late = LateEscrows(_at(section, own[0]))
            try:
                ledger = await late()
                token, now = await ledger.token(), await ledger.now()
                for row in own:
                    found[row.params.id] = await ledger.escrow(row.params), token, now
            finally:
                await late.disconnect()
        return [found[row.params.id] for row in rows]

    return run(ask)


def _seen(row: EscrowRow, seen: Seen) -> dict[str, Any]:
    """What the ledger's view makes of an escrow."""
    state, _, now = seen
    status = {"absent": "waiting for its deposit", "ended": "settled" if row.settled else "ended"}
    return {
        "status": status.get(state.status, state.status),
        "claimed": state.claimed,
        "drawn": state.drawn,
        "matures_at": state.matures_at,
        "contested": state.contested,
        "over": state.status != "ended" and now >= row.params.deadline,
    }


def _next(document: dict[str, Any]) -> str:
    """What will happen to an escrow, as people read it."""
    if document["status"] in ("settled", "ended") or "claimed" not in document:
        return ""
    if waits := _waits(document):
        return waits
    if document["over"]:
        return "  past its deadline: `penstock escrow settle` pays the rest back"
    return f"  until {utc(document['deadline'])}"


def _waits(document: dict[str, Any]) -> str:
    """Until when a claim waits, as people read it."""
    if document["claimed"] <= document["drawn"]:
        return ""
    return f"; {document['claimed'] - document['drawn']:,} can be paid from {utc(document['matures_at'])}"


def _at(section: LedgerSection, row: EscrowRow) -> LedgerSection:
    """The ledger section with the escrow's own contract and chain."""
    import msgspec

    from penstock.core.identity import to_hex

    domain = row.params.domain
    chain_id = section.chain_id or domain.chain_id
    return msgspec.structs.replace(section, escrow=to_hex(domain.contract), chain_id=chain_id)
