"""Real charging sessions, read from a CSV file: who plugged in where, when, and how much was delivered.

    session_id,station_id,plugged_in,unplugged,energy_wh
    S0004,CA-321,2019-03-01T07:35:00,2019-03-01T16:45:00,17366

One line a session, the header first, every line ended by a newline. The package carries a month of a real site
(`data/acn-caltech-2019-03.csv`; its source and licence are in `data/NOTICE-acn.md`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

import msgspec

from penstock.core.errors import UsageError
from penstock.core.units import Instant, Quantity

HEADER = "session_id,station_id,plugged_in,unplugged,energy_wh"
STATION_POWER = 6_600  # W: 208 V, 32 A, what a station of the site delivers
MAX_POWER = 1_000_000  # W: megawatt charging; a stay that needs more is a mistake in the file
MAX_ENERGY = 1_000_000  # Wh, ten times the largest battery of a car
MAX_FILE = 64 * 2**20  # bytes, some 1.1 million sessions

_ID = re.compile(r"[!-+\--~]{1,64}")  # printable ASCII without blank and comma
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


class Charge(msgspec.Struct, frozen=True):
    """One real session: a stay at a station and the energy that was delivered in it (Wh).

    The file's times are the site's local ones; they are taken as UTC, since only their differences are used.
    """

    session_id: str
    station: str
    plugged_in: Instant
    unplugged: Instant
    energy_wh: Quantity


def power_w(charge: Charge) -> int:
    """The power to replay `charge` at (W): a station's 6,600, or what the stay needs on average where that is more.

    The latter is rounded up, so that the energy fits into the stay (30 of the month's 954 sessions need it).
    """
    stay = charge.unplugged - charge.plugged_in
    return max(STATION_POWER, -(-charge.energy_wh * 3_600_000 // stay))


def read_charges(path: Path | None = None) -> list[Charge]:
    """The sessions of a file, in its order; without a path, the month that comes with the package.

    Raises:
        UsageError: the file cannot be read, or a line of it is wrong; the message names file and line.
    """
    if path is None:
        with as_file(files("penstock") / "data" / "acn-caltech-2019-03.csv") as packaged:
            return read_charges(packaged)
    lines = _lines(path)
    if lines[0] != HEADER:
        raise _wrong(path, 1, f"is not the header {HEADER}")
    charges: list[Charge] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        charge = _charge(path, number, line)
        if charge.session_id in first:
            raise _wrong(path, number, f"session {charge.session_id} is in line {first[charge.session_id]} already")
        first[charge.session_id] = number
        charges.append(charge)
    if not charges:
        raise UsageError(f"{path} has no session under its header", "name a file with at least one")
    return charges


def _wrong(path: Path, number: int, what: str) -> UsageError:
    return UsageError(f"{path}, line {number}: {what}", f"each line is {HEADER}")


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "name a CSV file of charging sessions") from None
    if len(content) > MAX_FILE:
        raise UsageError(f"{path} has more than {MAX_FILE >> 20} MiB", "split it")
    lines = content.split(b"\n")
    if lines.pop():
        raise _wrong(path, len(lines) + 1, "does not end in a newline; the file may have been cut off")
    if not lines:
        raise UsageError(f"{path} is empty", f"its first line is {HEADER}")
    try:
        return [line.removesuffix(b"\r").decode("ascii") for line in lines]
    except UnicodeDecodeError as error:
        number = next(i for i, line in enumerate(lines, start=1) if not line.isascii())
        raise _wrong(path, number, f"has the byte 0x{error.object[error.start]:02x}, which is not ASCII") from None


def _charge(path: Path, number: int, line: str) -> Charge:
    columns = line.split(",")
    if len(columns) != 5:
        raise _wrong(path, number, f"has {len(columns)} columns, not 5")
    session_id, station, plugged_in, unplugged, energy = columns
    for name, text in (("session_id", session_id), ("station_id", station)):
        if not _ID.fullmatch(text):
            raise _wrong(path, number, f"{name} {text[:70]!r} is not 1 to 64 characters without blanks")
    if not (energy.isdecimal() and len(energy) <= 9 and 1 <= int(energy) <= MAX_ENERGY):
        raise _wrong(path, number, f"energy_wh {energy[:40]!r} is not a whole number in 1..{MAX_ENERGY}")
    charge = Charge(
        session_id,
        station,
        _instant(path, number, "plugged_in", plugged_in),
        _instant(path, number, "unplugged", unplugged),
        Quantity(int(energy)),
    )
    if charge.unplugged <= charge.plugged_in:
        raise _wrong(path, number, f"unplugged {unplugged} is not after plugged_in {plugged_in}")
    if power_w(charge) > MAX_POWER:
        raise _wrong(path, number, f"{energy} Wh in that stay would need {power_w(charge)} W")
    return charge


def _instant(path: Path, number: int, name: str, text: str) -> Instant:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise _wrong(path, number, f"{name} {text[:40]!r} is no time such as 2019-03-01T07:35:00") from None
    if at.year < 1970:
        raise _wrong(path, number, f"{name} {text} is before 1970")
    return Instant(int(at.timestamp()) * 1000)
