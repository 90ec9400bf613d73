"""`penstock channel authorize` and `penstock channel open`: a payer without ether signs, anybody sends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.node import ChainId, ConfigFile, Contract, KeyName, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile

if TYPE_CHECKING:
    from penstock.core.ports import SignedOpen

MAX_FILE = 16_384  # bytes
PERIOD = 3_600  # seconds


def authorize(
    supplier: Annotated[str, typer.Argument(help="Address of the supplier to pay.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    deposit: Annotated[str, typer.Option(help="What goes into the channel, in whole tokens.", show_default=False)],
    fee: Annotated[
        str | None, typer.Option(help="What whoever sends it gets, in whole tokens.", show_default=False)
    ] = None,
    period: Annotated[int, typer.Option(help="Challenge period in seconds.")] = PERIOD,
    hours: Annotated[float, typer.Option(help="How long it can be sent.")] = 1.0,
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign what opens a channel to a supplier, without any ether: somebody else sends it, for a fee in the token.

    One signature (EIP-3009) over deposit and fee, good for this channel alone. Once `penstock channel open` has sent
    it, `penstock consume` pays this supplier through it.

    \b
    Example:
        penstock channel authorize 0xf1cC... opening.json --deposit 5 --fee 0.10 --key car --url http://127.0.0.1:8545
    """
    from penstock.cli.money import shown, sum_of
    from penstock.cli.node import journal_open, ledger_at, open_key, run, settings
    from penstock.core.channel import ChannelParams
    from penstock.core.errors import UsageError
    from penstock.core.identity import parse_address
    from penstock.core.ports import SignedOpen
    from penstock.core.session import Role
    from penstock.core.units import Amount
    from penstock.node import book
    from penstock.node.book import ChannelRow
    from penstock.node.tasks import durable

    payee = parse_address(supplier)
    if not 0 < hours <= 24 * 365:
        raise UsageError(f"--hours {hours} is outside 0..8760", "1 hour suits most")
    read = settings(config, url, contract, chain_id, key, passphrase_file)

    async def work(_asked: asyncio.Event) -> tuple[dict[str, Any], list[str]]:
        async with journal_open() as journal:
            signer = open_key(read.key)
            async with ledger_at(read.ledger) as (ledger, token):
                placed, paid = sum_of(deposit, token, "--deposit"), sum_of(fee, token, "--fee") if fee else Amount(0)
                counter = await ledger.next_counter(signer.address)
                params = ChannelParams(
                    ledger.domain, signer.address, payee, signer.address, payee, period, False, counter
                )
                params.check()
                until = await ledger.now() + int(hours * 3_600)
                signed = SignedOpen(params, await ledger.authorize(signer, params, placed, paid, until))
                row = ChannelRow(params, Role.CONSUMER, Amount(0))
                await durable(journal, row.rows())  # before anybody can send it
                _write(file, signed)
        channel = book.name_of(row)
        return {"channel": channel, "file": str(file), "deposit": placed, "fee": paid, "until": until}, [
            f"channel {channel[:18]}... with {shown(placed, token)} opens when somebody sends {file}, "
            f"for {shown(paid, token)}"
        ]

    document, lines = run(work)
    answer(document, lines, as_json=as_json)


def open_(
    file: Annotated[Path, typer.Argument(help="What `channel authorize` wrote.", show_default=False)],
    config: ConfigFile = None,
    url: Url = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Send somebody's signed opening, and earn its fee.

    The key pays the gas; the fee comes into its balance in the channel contract. An opening that would fail is refused
    before anything is paid.

    \b
    Example:
        penstock channel open opening.json --key helper --url http://127.0.0.1:8545
    """
    import msgspec

    from penstock.cli.money import shown
    from penstock.cli.node import ledger_at, open_key, run, settings
    from penstock.core.identity import to_hex

    signed = _read(file)
    read = settings(config, url, None, None, key, passphrase_file)
    domain = signed.params.domain
    section = msgspec.structs.replace(read.ledger, contract=to_hex(domain.contract), chain_id=domain.chain_id)

    async def work(_asked: asyncio.Event) -> tuple[dict[str, Any], list[str]]:
        signer = open_key(read.key)
        async with ledger_at(section) as (ledger, token):
            mined = await ledger.open_authorized(signer, signed.params, signed.authorization)
        gas = sum(one.gas for one in mined)
        fee = signed.authorization.fee
        channel = to_hex(signed.params.id)
        return (
            {"channel": channel, "fee": fee, "gas": gas, "hash": to_hex(mined[-1].hash)},
            [f"channel {channel[:18]}... is open: {gas:,} gas, and {shown(fee, token)} for us"],
        )

    document, lines = run(work)
    answer(document, lines, as_json=as_json)


def _write(file: Path, signed: SignedOpen) -> None:
    from penstock.core.codec import encode
    from penstock.core.errors import UsageError

    try:
        file.write_bytes(encode(signed) + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "choose another name") from None


def _read(file: Path) -> SignedOpen:
    from penstock.core.codec import decode_part
    from penstock.core.errors import BadMessage, OutOfRange, UsageError
    from penstock.core.ports import SignedOpen

    try:
        with file.open("rb") as stream:
            signed = decode_part(stream.read(MAX_FILE), SignedOpen)
        signed.params.check()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "check its name") from None
    except (BadMessage, OutOfRange) as error:
        raise UsageError(f"{file} holds no signed opening: {error}", "ask for it again") from None
    return signed
