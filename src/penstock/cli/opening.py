"""`penstock channel authorize` and `penstock channel open`: a payer without ether signs, anybody sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.node import ChainId, ConfigFile, Contract, KeyName, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile
from penstock.core.errors import OutOfRange, TransactionFailed, UsageError, WrongLedger

if TYPE_CHECKING:
    from penstock.cli.config import LedgerSection
    from penstock.core.channel import ChannelParams, Domain
    from penstock.core.identity import Address
    from penstock.core.ports import Ledger, SignedOpen, TokenFacts
    from penstock.core.units import Amount

MAX_FILE = 16_384  # bytes
SIGNATURE = 65  # bytes
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
    from penstock.cli.money import shown
    from penstock.cli.node import journal_open, ledger_at, open_key, run, settings
    from penstock.core.channel import ChannelParams
    from penstock.core.codec import encode
    from penstock.core.ports import SignedOpen
    from penstock.core.session import Role
    from penstock.core.units import Amount
    from penstock.node import book
    from penstock.node.book import ChannelRow
    from penstock.node.tasks import durable

    payee = _payee(supplier)
    if not 1 / 60 <= hours <= 24 * 365:
        raise UsageError(f"--hours {hours:g} is not between a minute and 8760 hours", "1 hour suits most")
    read = settings(config, url, contract, chain_id, key, passphrase_file)

    async def work(_asked: asyncio.Event) -> tuple[dict[str, Any], list[str]]:
        async with journal_open() as journal:
            signer = open_key(read.key)
            async with ledger_at(read.ledger) as (ledger, token):
                placed, paid = _sum(deposit, token, "--deposit"), _sum(fee, token, "--fee") if fee else Amount(0)
                if placed == 0:
                    raise UsageError("--deposit is 0", "a channel without a deposit pays for nothing")
                counter = ledger.fresh_counter()
                params = _checked(
                    ChannelParams(ledger.domain, signer.address, payee, signer.address, payee, period, False, counter)
                )
                await _has(ledger, token, signer.address, placed + paid)
                until = await ledger.now() + int(hours * 3_600)
                with _new(file) as stream:
                    signed = SignedOpen(params, await ledger.authorize(signer, params, placed, paid, until))
                    row = ChannelRow(params, Role.CONSUMER, Amount(0))
                    await durable(journal, row.rows())  # before anybody can send it
                    stream.write(encode(signed) + b"\n")
        channel = book.name_of(row)
        lines = [
            f"channel {channel[:18]}... with {shown(placed, token)} opens when somebody sends {file}, "
            f"for {shown(paid, token)}"
        ]
        if not paid:
            lines.append("without --fee a stranger has no reason to send it")
        return {"channel": channel, "file": str(file), "deposit": placed, "fee": paid, "until": until}, lines

    document, lines = run(work)
    answer(document, lines, as_json=as_json)


def open_(
    file: Annotated[Path, typer.Argument(help="What `channel authorize` wrote.", show_default=False)],
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Send somebody's signed opening, and earn its fee.

    The key pays the gas; the fee comes into its balance in the channel contract. An opening that would fail is refused
    before anything is paid, and so is one in a contract whose code is not this version's, or in another one than is
    configured.

    \b
    Example:
        penstock channel open opening.json --key helper --url http://127.0.0.1:8545
    """
    import msgspec

    from penstock.cli.money import shown
    from penstock.cli.node import ledger_at, open_key, run, settings
    from penstock.core.identity import to_hex

    signed = _read(file)
    read = settings(config, url, contract, chain_id, key, passphrase_file)
    domain = signed.params.domain
    _same(read.ledger, domain)
    section = msgspec.structs.replace(read.ledger, contract=to_hex(domain.contract), chain_id=domain.chain_id)

    async def work(_asked: asyncio.Event) -> tuple[dict[str, Any], list[str]]:
        signer = open_key(read.key)
        async with ledger_at(section) as (ledger, token):
            genuine = await ledger.genuine()
            if not genuine and read.ledger.contract is None:
                raise WrongLedger(
                    f"the contract at {to_hex(domain.contract)} is not this version's and may pay no fee",
                    "send it only if you know the contract: give --contract",
                )
            await _sendable(ledger, signed)
            mined = await ledger.open_authorized(signer, signed.params, signed.authorization)
        gas = sum(one.gas for one in mined)
        channel = to_hex(signed.params.id)
        fee = signed.authorization.fee if genuine else None  # what another contract pays is its own affair
        earned = (
            "the contract is not this version's; look whether it paid" if fee is None else f"{shown(fee, token)} for us"
        )
        return (
            {"channel": channel, "fee": fee, "gas": gas, "hash": to_hex(mined[-1].hash)},
            [f"channel {channel[:18]}... is open: {gas:,} gas, and {earned}"],
        )

    document, lines = run(work)
    answer(document, lines, as_json=as_json)


def _payee(text: str) -> Address:
    from penstock.core.identity import parse_address

    try:
        return parse_address(text)
    except OutOfRange as error:
        raise UsageError(f"the supplier: {error}", "its operator finds it with `penstock key list`") from None


def _checked(params: ChannelParams) -> ChannelParams:
    """Channel parameters that the contract takes, or what is wrong with the flags."""
    if params.partner == params.opener:
        raise UsageError("the supplier is ourselves", "give the supplier's address, or sign with another --key")
    try:
        params.check()
    except OutOfRange as error:
        raise UsageError(f"no such channel: {error}", "check the supplier's address and --period") from None
    return params


def _sum(text: str, token: TokenFacts, flag: str) -> Amount:
    """Token units from a flag in whole tokens."""
    from penstock.core.units import parse_decimal

    try:
        return parse_decimal(text, token.decimals, flag)
    except OutOfRange as error:
        problem = f"{flag} {text[:40]} is negative" if text.strip().startswith("-") else str(error)
        raise UsageError(problem, f"a {token.symbol} has {token.decimals} decimals; write 0.40") from None


async def _has(ledger: Ledger, token: TokenFacts, owner: Address, needed: int) -> None:
    from penstock.cli.money import shown
    from penstock.core.errors import OutOfFunds
    from penstock.core.identity import to_hex

    wallet = (await ledger.holdings(owner)).wallet
    if wallet < needed:
        raise OutOfFunds(
            f"{to_hex(owner)} has {shown(wallet, token)} in its wallet, {shown(needed, token)} are needed",
            "send it tokens, or deposit less",
        )


def _same(section: LedgerSection, domain: Domain) -> None:
    """Pass where a file's contract and chain are the configured ones, if any are."""
    from penstock.core.identity import to_hex

    if section.contract is not None and _contract(section.contract) != domain.contract:
        raise WrongLedger(
            f"the file is for the contract {to_hex(domain.contract)}, {section.contract} is configured",
            "send it only if you know that contract: give it as --contract",
        )
    if section.chain_id is not None and section.chain_id != domain.chain_id:
        raise WrongLedger(
            f"the file is for chain {domain.chain_id}, {section.chain_id} is configured", "check --chain-id and --url"
        )


def _contract(text: str) -> Address:
    from penstock.core.identity import parse_address

    try:
        return parse_address(text)
    except OutOfRange as error:
        raise UsageError(f"--contract: {error}", "check the configuration") from None


async def _sendable(ledger: Ledger, signed: SignedOpen) -> None:
    """Pass where the channel can still be opened by this file."""
    from penstock.cli.standing import utc
    from penstock.core.identity import to_hex

    channel, until = to_hex(signed.params.id)[:18], signed.authorization.valid_before
    status = (await ledger.channel(signed.params)).status
    if status != "absent":
        standing = "is open already" if status == "open" else f"is {status}"
        raise TransactionFailed(f"channel {channel}... {standing}", "nothing was sent")
    if await ledger.now() >= until:
        since = f"since {utc(until)}" if 0 < until < 2**37 else "long since"
        raise TransactionFailed(f"the signed opening has expired {since}", "ask its signer to authorize again")


@contextmanager
def _new(file: Path) -> Iterator[IO[bytes]]:
    """A file that was not there before, and is not there after an error."""
    try:
        stream = file.open("xb")
    except FileExistsError:
        raise UsageError(f"{file} is there already", "choose another name: it may hold a signed opening") from None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "choose another name") from None
    try:
        with stream:
            yield stream
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"cannot write {file}: {error.strerror}", "choose another name") from None
        raise


def _read(file: Path) -> SignedOpen:
    from penstock.core.codec import decode_part
    from penstock.core.errors import BadMessage
    from penstock.core.ports import SignedOpen
    from penstock.core.units import MAX_AMOUNT

    try:
        with file.open("rb") as stream:
            signed = decode_part(stream.read(MAX_FILE), SignedOpen)
        signed.params.check()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "check its name") from None
    except (BadMessage, OutOfRange) as error:
        raise UsageError(f"{file} holds no signed opening: {error}", "ask for it again") from None
    said = signed.authorization
    if not (0 < said.deposit + said.fee <= MAX_AMOUNT and min(said.deposit, said.fee) >= 0):
        raise UsageError(f"{file} holds no signed opening: its sums are outside uint96", "ask for it again")
    if not 0 <= said.valid_after <= said.valid_before < 2**256:
        raise UsageError(f"{file} holds no signed opening: its times are none", "ask for it again")
    if len(said.signature) != SIGNATURE:
        raise UsageError(f"{file} holds no signed opening: its signature has not 65 bytes", "ask for it again")
    return signed
