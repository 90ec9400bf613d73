"""`penstock prices`: look at a price series, and sign one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile
from penstock.core.errors import OutOfRange, UsageError

if TYPE_CHECKING:
    from penstock.core.series import Rates

app = typer.Typer(help="Look at price series, and sign them.", rich_markup_mode=None)

Named = Annotated[
    str, typer.Argument(metavar="PRICES", help="A file, a URL, entsoe:AREA or nordpool:AREA.", show_default=False)
]
Title = Annotated[str, typer.Option(help="What they are signed as; a pole wants supply, or feed.")]


@app.command()
def show(
    prices: Named,
    signer: Annotated[
        str | None, typer.Option(help="Pass only if this address signed them.", show_default=False)
    ] = None,
    title: Title = "supply",
    as_json: AsJson = False,
) -> None:
    """Read a price series as a pole would, and say what is in it.

    \b
    Example:
        penstock prices show today.json
        penstock prices show https://prices.example/today --signer 0x...
        penstock prices show entsoe:DE_LU
    """
    import asyncio

    from penstock.core import series
    from penstock.core.units import format_decimal
    from penstock.node.clock import now

    rates = asyncio.run(_rates(prices, signer, title))
    values = [slot.value for slot in rates.slots]
    at = now()
    current = f"{rates.price(at):f}" if rates.start <= at < rates.end else None
    low, high = (format_decimal(value, rates.scale) for value in (min(values), max(values)))
    begin, end = series.written(rates.start), series.written(rates.end)
    below = sum(value < 0 for value in values)
    document: dict[str, object] = {
        "slots": len(values), "start": begin, "end": end, "lowest": low, "highest": high, "now": current,
        "negative": below,
    }  # fmt: skip
    lines = [
        f"{len(values)} prices from {begin} to {end}",
        f"between {low} and {high}, {below} of them below 0",
        f"now: {current}" if current is not None else "there is none for now",
    ]
    answer(document, lines, as_json=as_json)


@app.command()
def sign(
    prices: Named,
    key: Annotated[str | None, typer.Option(help="Name of the key that signs.", show_default=False)] = None,
    passphrase_file: PassphraseFile = None,
    title: Title = "supply",
) -> None:
    """Sign a price series, and write it to stdout: whoever passes it on cannot change it.

    \b
    Example:
        penstock prices sign today.json --key publisher > signed.json
        penstock supply --prices signed.json --prices-signer 0x... (and the rest)
    """
    import asyncio

    from penstock.cli.node import open_key, settings
    from penstock.core import published
    from penstock.node.clock import now

    signs = open_key(settings(None, None, None, None, key, passphrase_file, None).key)
    rates = asyncio.run(_rates(prices, None, title))
    typer.echo(published.dump(published.sign(signs, rates, title, now())).decode(), nl=False)


async def _rates(name: str, signer: str | None, title: str) -> Rates:
    """The series that a name means, checked.

    Raises:
        UsageError: no source, or no address. PriceError: the source has no prices that can be used.
    """
    from penstock.core.identity import parse_address
    from penstock.gateways.prices import Vouched, source
    from penstock.node.clock import now

    try:
        vouched = Vouched(parse_address(signer), title) if signer else None
    except OutOfRange as error:
        raise UsageError(str(error), "give --signer the signer's address") from None
    found = source(name, now, vouched)
    try:
        return await found.rates()
    finally:
        await found.close()
