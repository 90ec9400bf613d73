"""`penstock meter`: what a meter signed, checked by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.output import AsJson, answer
from penstock.core.errors import BadReading, OutOfRange, UsageError

if TYPE_CHECKING:
    from penstock.gateways.ocmf import OcmfKey, OcmfReadings, OcmfRecord

MAX_FILE = 16 * 2**20  # bytes: some 20,000 records
MAX_KEY_FILE = 4096

app = typer.Typer(help="Check what a meter signed.", rich_markup_mode=None)


@app.callback()
def _meter() -> None:
    """Keep `check` a command of its own, though it is the only one."""


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="File of signed readings, one a line; - is stdin.", show_default=False)],
    key: Annotated[
        str,
        typer.Option(help="The meter's public key (hexadecimal, base64), or a file that holds it.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Verify OCMF readings of one meter against its public key, and say what each of them says.

    A line is an OCMF text, bare or in hexadecimal digits, or the JSON of an OCPP message with signed values in it. The
    readings must be in the meter's order: one that is replayed, reordered or re-paged is refused as one that is forged.
    The first that is bad ends the check with exit code 1 and the reason.

    \b
    Example:
        penstock meter check session.ocmf --key 3059301306072A86...
        penstock meter check - --key meter.pem --json < session.ocmf
    """
    from penstock.gateways.ocmf import OcmfReadings

    readings = OcmfReadings(_key(key))
    records, failed = _checked(readings, _lines(file))
    if failed is not None and as_json:
        raise failed
    curve, name = readings.key.curve, str(readings.key)
    answer(
        {"key": name, "curve": curve, "records": [_document(record) for record in records]},
        [line for record in records for line in _told(record)],
        as_json=as_json,
    )
    if failed is not None:
        raise failed


def _checked(readings: OcmfReadings, lines: list[tuple[int, str]]) -> tuple[list[OcmfRecord], BadReading | None]:
    """The records up to the first that is bad, and what is wrong with that."""
    from penstock.gateways.ocmf import texts

    records: list[OcmfRecord] = []
    for number, line in lines:
        try:
            records.extend(map(readings.take, texts(line)))
        except BadReading as error:
            return records, BadReading(f"line {number}: {error}", error.advice)
    return records, None


def _key(text: str) -> OcmfKey:
    from penstock.gateways.ocmf import OcmfKey

    path = Path(text)
    try:
        if len(text) < 256 and path.is_file():
            with path.open("rb") as file:
                text = file.read(MAX_KEY_FILE).decode("utf-8-sig", errors="replace")
        return OcmfKey.parse(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "name a file that holds the key") from None
    except OutOfRange as error:
        raise UsageError(str(error), f"--key: {error.advice}") from None


def _lines(name: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_FILE + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", "name a file of readings, or - for stdin") from None
    except ValueError:
        raise UsageError(f"{name} is no UTF-8 text", "name a file of readings, one a line") from None
    if len(data) > MAX_FILE:
        raise UsageError(f"{name} has more than {MAX_FILE >> 20} MiB", "split it")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{name} holds no reading", "a reading is a line that begins with OCMF|")
    return lines


def _document(record: OcmfRecord) -> dict[str, object]:
    return {
        "page": f"{record.context}{record.page}",
        "gateway": record.gateway,
        "meter": record.meter,
        "register": record.register,
        "unit": record.unit,
        "readings": [
            {"wh": f"{one.register:f}", "total": one.total, "at": one.at, "clock": one.clock, "reason": one.reason}
            for one in record.readings
        ],
    }


def _told(record: OcmfRecord) -> list[str]:
    from penstock.gateways.ocmf.record import shown

    who = " ".join(filter(None, (record.gateway, record.meter)))
    head = f"{record.context}{record.page}  meter {who}, register {record.register}: verified"
    return [head, *(f"    {one.reason or '-'}  {shown(one)} (clock {one.clock})" for one in record.readings)]
