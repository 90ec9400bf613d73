"""`penstock channel`: look at channels, take their vouchers out, and end them on the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.handover import handover
from penstock.cli.node import ChainId, ConfigFile, Contract, KeyName, Url
from penstock.cli.opening import authorize, open_
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile

if TYPE_CHECKING:
    from penstock.cli.config import LedgerSection
    from penstock.core.ports import ChannelState, Filed, Mined, TokenFacts
    from penstock.node.book import ChannelRow
    from penstock.rails.stream import VoucherNote
    from penstock.storage.sqlite import SqliteJournal

    Seen = tuple[ChannelState, Filed, TokenFacts]

app = typer.Typer(help="Look at payment channels, take their vouchers out, and end them.", rich_markup_mode=None)

app.command()(handover)
app.command()(authorize)
app.command("open")(open_)

Name = Annotated[str, typer.Argument(help="The channel's id, or how it begins.", show_default=False)]


@app.command("list")
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
        f"vouchers {one['worth']:>11,}  {one['status']}{_risk(one)}"
        for one in documents
    ]
    answer({"channels": documents}, lines or ["no channels yet"], as_json=as_json)


@app.command()
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
        "transactions": _mined(row.mined),
    }
    section = settings(config, url, contract, None, None, None).ledger
    if section.url:
        (seen,) = _ask(section, [row])
        state, _, token = seen
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
            async with ledger_at(_own_contract(anywhere, own[0])) as (ledger, token):
                for row in own:
                    state = await ledger.channel(row.params)
                    filed = await ledger.filed(row.params, row.role is Role.SUPPLIER)
                    found[row.params.id] = state, filed, token
        return [found[row.params.id] for row in rows]

    return run(ask)


def _seen(journal: SqliteJournal, row: ChannelRow, seen: Seen) -> dict[str, Any]:
    """What the ledger's view makes of a channel."""
    from penstock.core.watcher import at_risk
    from penstock.node import book

    state, filed, _ = seen
    status = state.status if state.status in ("closing", "settled") else None
    return {
        "at_risk": at_risk(book.filing_of(journal, row), state, filed),
        "until": state.closes_at or None,
        **({"status": status} if status else {}),
    }


def _risk(document: dict[str, Any]) -> str:
    """What is at risk and until when, as people read it."""
    if not document["at_risk"]:
        return ""
    if document["until"]:
        return f"  AT RISK {document['at_risk']:,} until {_utc(document['until'])}: file, or start `penstock watch`"
    return f"  at risk {document['at_risk']:,} from {document['period_s']:,} s after a close"


@app.command()
def export(channel: Name, as_json: AsJson = False) -> None:
    """Print the channel's newest voucher as EIP-712 typed data with its signature.

    Any wallet library can check it: the object `typed_data` is what eth-account's `encode_typed_data(full_message=...)`
    and ethers' `verifyTypedData` take; whoever holds the voucher as its payee can file it with the contract.

    \b
    Example:
        penstock channel export 0x0fd512 --json > voucher.json
    """
    from penstock.cli.node import read_journal
    from penstock.core.errors import UsageError
    from penstock.core.identity import to_hex
    from penstock.node import book

    journal = read_journal()
    row = book.channel_named(journal, channel)
    note = book.last_note(journal, row)
    if note is None:
        raise UsageError("no voucher has been signed in this channel yet", "it comes with the first session")
    document: dict[str, Any] = {
        "channel": book.name_of(row),
        "signer": to_hex(row.params.opener_key),
        "digest": to_hex(note.voucher.digest(row.params)),
        "signature": to_hex(note.signature),
        "typed_data": typed_data(row, note),
        "locks": [
            {"root": to_hex(lock.root), "tick_value": lock.tick_value, "ticks": lock.ticks, "expiry": lock.expiry}
            for lock in note.locks
        ],
        "proofs": _proofs(journal, row),
    }
    answer(document, [f"{name:10} {value}" for name, value in document.items()], as_json=as_json)


@app.command()
def close(
    channel: Name,
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """End a channel without the other side, with the best voucher that we hold.

    A supplier is paid at once. A consumer begins the challenge period, in which the supplier can file its voucher;
    `penstock channel settle` pays out after it. Where the other side has begun to close, this files our voucher.
    A close that both sides have signed is sent instead, where there is one.

    \b
    Example:
        penstock channel close 0x0fd512 --key pole --url http://127.0.0.1:8545
    """
    _act(channel, "close", config, url, contract, chain_id, key, passphrase_file, as_json)


@app.command()
def settle(
    channel: Name,
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Pay out a channel whose challenge period is over.

    \b
    Example:
        penstock channel settle 0x0fd512 --key car --url http://127.0.0.1:8545
    """
    _act(channel, "settle", config, url, contract, chain_id, key, passphrase_file, as_json)


@app.command()
def withdraw(
    amount: Annotated[
        str | None, typer.Argument(help="How much, in whole tokens; left out: everything.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Move what settled channels have brought from the contract's balance to the key's wallet.

    \b
    Example:
        penstock channel withdraw --key pole --url http://127.0.0.1:8545 --contract 0x...
    """
    from penstock.cli.money import shown, sum_of
    from penstock.cli.node import ledger_at, open_key, run, settings
    from penstock.core.errors import OutOfFunds

    read = settings(config, url, contract, chain_id, key, passphrase_file)

    async def work(_asked: asyncio.Event) -> tuple[dict[str, Any], list[str]]:
        signer = open_key(read.key)
        async with ledger_at(read.ledger) as (ledger, token):
            held = (await ledger.holdings(signer.address)).balance
            wanted = sum_of(amount, token, "AMOUNT") if amount is not None else held
            if wanted > held or held == 0:
                raise OutOfFunds(f"the contract holds {shown(held, token)} for this key", "channels bring more")
            mined = await ledger.withdraw(signer, wanted)
            left = await ledger.holdings(signer.address)
        document = {"withdrawn": wanted, "wallet": left.wallet, "balance": left.balance, "transactions": _mined(mined)}
        return document, [f"withdrew {shown(wanted, token)}; the wallet has {shown(left.wallet, token)} now"]

    document, lines = run(work)
    answer(document, lines, as_json=as_json)


def _act(
    channel: str,
    what: str,
    config: Path | None,
    url: str | None,
    contract: str | None,
    chain_id: int | None,
    key: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Send a transaction for a channel and keep what came of it."""
    from penstock.cli.node import journal_open, ledger_at, open_key, run, settings
    from penstock.node import book, ending

    read = settings(config, url, contract, chain_id, key, passphrase_file)

    async def work(_asked: asyncio.Event) -> dict[str, Any]:
        async with journal_open() as journal:
            row = book.channel_named(journal, channel)
            signer = open_key(read.key)
            async with ledger_at(_own_contract(read.ledger, row)) as (ledger, _):
                act = ending.close if what == "close" else ending.settle
                mined, state = await act(journal, ledger, signer, row)
        return {
            "channel": book.name_of(row),
            "status": state.status,
            "closes_at": state.closes_at,
            "transactions": _mined(mined),
        }

    document = run(work)
    lines = [f"{one['what']}: {one['gas']:,} gas, {one['hash']}" for one in document["transactions"]]
    lines.append(f"the channel is {document['status']}{_when(document['closes_at'])}")
    answer(document, lines, as_json=as_json)


def _when(closes_at: int) -> str:
    return f"; it can be settled from {_utc(closes_at)}" if closes_at else ""


def _utc(seconds: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _own_contract(section: LedgerSection, row: ChannelRow) -> LedgerSection:
    """The ledger section with the channel's own contract and chain, where it names none."""
    import msgspec

    from penstock.core.identity import to_hex

    return msgspec.structs.replace(
        section,
        contract=section.contract or to_hex(row.params.domain.contract),
        chain_id=section.chain_id or row.params.domain.chain_id,
    )


def _document(journal: SqliteJournal, row: ChannelRow) -> dict[str, Any]:
    from penstock.core.identity import to_hex
    from penstock.core.session import Role
    from penstock.core.watcher import worth
    from penstock.node import book

    note = book.last_note(journal, row)
    held = worth(book.filing_of(journal, row))
    promised = note.voucher.amount + note.voucher.locked if note else 0
    if row.settled:
        status = "settled"
    elif row.close is not None:
        status = "signed off"
    elif row.closing:
        status = "closing"
    else:
        status = "open" if row.deposit else "opening"
    peer = row.params.partner if row.role is Role.CONSUMER else row.params.opener
    return {
        "channel": book.name_of(row),
        "role": str(row.role),
        "peer": to_hex(peer),
        "deposit": row.deposit,
        "worth": held if row.role is Role.SUPPLIER else (note.voucher.amount if note else 0),
        "locked": note.voucher.locked if note else 0,
        "promised": promised,
        "nonce": note.voucher.nonce if note else 0,
        "status": status,
        "at_risk": held if status != "settled" else 0,
        "until": None,
        "period_s": row.params.period,
    }


def _proofs(journal: SqliteJournal, row: ChannelRow) -> list[dict[str, Any]]:
    from penstock.core.identity import to_hex
    from penstock.node import book

    filing = book.filing_of(journal, row)
    proofs = filing.proofs if filing else ()
    return [{"count": count, "preimage": to_hex(preimage)} for count, preimage in proofs if count]


def _mined(mined: Any) -> list[dict[str, Any]]:
    from penstock.core.identity import to_hex

    rows: list[Mined] = list(mined)
    return [{"what": one.what, "hash": to_hex(one.hash), "gas": one.gas, "block": one.block} for one in rows]


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
