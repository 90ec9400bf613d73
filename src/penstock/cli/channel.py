"""`penstock channel`: the group of its commands, and those that end channels on the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.export import export
from penstock.cli.handover import handover
from penstock.cli.node import ChainId, ConfigFile, Contract, KeyName, Url
from penstock.cli.opening import authorize, open_
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile
from penstock.cli.standing import Name, list_, mined_rows, own_contract, show, utc

if TYPE_CHECKING:
    from penstock.core.identity import Key
    from penstock.core.ports import ChannelState, Journal, Ledger, Mined
    from penstock.node.book import ChannelRow

    Act = Callable[[Journal, Ledger, Key, ChannelRow], Awaitable[tuple[list[Mined], ChannelState]]]

app = typer.Typer(help="Look at payment channels, hand them to a watcher, and end them.", rich_markup_mode=None)

app.command("list")(list_)
app.command()(show)
app.command()(export)
app.command()(handover)
app.command()(authorize)
app.command("open")(open_)


@app.command()
def close(
    channel: Name,
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="After a journal was restored: do not wait for a newer voucher.")
    ] = False,
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
    from penstock.node import ending

    _act(channel, partial(ending.close, anyway=anyway), config, url, contract, chain_id, key, passphrase_file, as_json)


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
    from penstock.node import ending

    _act(channel, ending.settle, config, url, contract, chain_id, key, passphrase_file, as_json)


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
    from penstock.cli.node import LateLedger, settings
    from penstock.cli.withdrawal import take_home

    read = settings(config, url, contract, chain_id, key, passphrase_file)
    take_home(read, LateLedger(read.ledger), amount, as_json=as_json)


def _act(
    channel: str,
    act: Act,
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
    from penstock.node import book

    read = settings(config, url, contract, chain_id, key, passphrase_file)

    async def work(_asked: asyncio.Event) -> dict[str, Any]:
        async with journal_open() as journal:
            row = book.channel_named(journal, channel)
            signer = open_key(read.key)
            async with ledger_at(own_contract(read.ledger, row)) as (ledger, _):
                mined, state = await act(journal, ledger, signer, row)
        return {
            "channel": book.name_of(row),
            "status": state.status,
            "closes_at": state.closes_at,
            "transactions": mined_rows(mined),
        }

    document = run(work)
    lines = [f"{one['what']}: {one['gas']:,} gas, {one['hash']}" for one in document["transactions"]]
    lines.append(f"the channel is {document['status']}{_when(document['closes_at'])}")
    answer(document, lines, as_json=as_json)


def _when(closes_at: int) -> str:
    return f"; it can be settled from {utc(closes_at)}" if closes_at else ""
