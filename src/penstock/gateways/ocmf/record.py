"""An OCMF text (Open Charge Metering Format, 1.4): its signature verified, its payload read.

    OCMF|payload|signature

What it says is read by `pyocmf`, after the signature has held, and only what this project uses of it. Whatever a
bill could not rest on is refused: a meter that is not well, a value that is no exact number, a clock without its state.
"""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
from pydantic import ValidationError
from pyocmf import MeterReadingReason, MeterStatus, Payload, SpecWarning, TimeStatus, get_obis_info
from pyocmf import Reading as Said
from pyocmf.registries.obis import OBISCategory

from penstock.core.errors import BadReading
from penstock.core.meter import Reading
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY, Instant, Quantity
from penstock.gateways.ocmf.key import OcmfKey
from penstock.gateways.ocmf.signature import check, sections, utf8
from penstock.gateways.ocmf.strict import DECIMAL, Number, read_object

BEGIN = "B"
ENDS = frozenset("ELRAP")  # ended: in order, locally, remotely, by an error, by a power failure
SCALES = {"kWh": 3, "Wh": 0}  # powers of ten in a Wh
MAX_READINGS = 1_000  # of one record: a quarter of an hour in seconds

_PAGE = re.compile(r"([TF])(0|[1-9][0-9]{0,17})")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2},[0-9]{3}[+-][0-9]{4} [UISR]")
_OBIS = re.compile(r"[0-9A-Fa-f]{1,2}-[0-9A-Fa-f]{1,2}:[0-9A-Fa-f]{1,2}(\.[0-9A-Fa-f]{1,2}){2}([.*][0-9A-Fa-f]{1,3})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MOST = Decimal(MAX_QUANTITY)


class OcmfReading(msgspec.Struct, frozen=True):
    """What the register showed: `register` in Wh, exactly, `at` an instant of the meter's clock.

    `clock` is that clock's state: S synchronized, I informative, R relative to an informative one, U unknown. `reason`
    is why it was read: B at the begin of a transaction, E (or L, R, A, P) at its end, C, S or T within; empty outside.
    """

    register: Decimal
    at: Instant
    clock: str
    reason: str

    @property
    def total(self) -> Quantity:
        """The register in whole Wh, rounded down."""
        return Quantity(int(self.register))


class OcmfRecord(msgspec.Struct, frozen=True):
    """A text whose signature held. `readings` are those of one import register, in the meter's order, one at least.

    `text` is the record as it came, `payload` what is signed of it. Pages are counted in a `context`: T within
    transactions, F outside. `gateway` and `meter` are serial numbers; one of them may be empty. `register` is the OBIS
    code of what was read, `unit` is kWh or Wh.
    """

    text: bytes
    payload: bytes
    context: str
    page: int
    gateway: str
    meter: str
    register: str
    unit: str
    readings: tuple[OcmfReading, ...]

    @property
    def last(self) -> OcmfReading:
        """The newest reading in it."""
        return self.readings[-1]

    @property
    def reading(self) -> Reading:
        """The newest reading in it, as a session takes it: whole Wh, with the text as what the meter signed."""
        return Reading(self.last.total, self.last.at, self.text)


def verify(text: bytes | str, key: OcmfKey) -> OcmfRecord:
    """Verify an OCMF text against the meter's key, and read it. Blanks around it are passed over.

    Nothing of the payload is looked at before its signature holds.

    Raises:
        BadReading: unsigned, forged, malformed, of a meter that is not well, or nothing that can be billed; the
            message says which.
    """
    try:
        text = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise BadReading("the reading is no UTF-8") from None
    text = text.strip()
    found = sections(text)
    check(found, key)
    payload = read_object(utf8(found.payload, "payload"), "payload")
    page = _PAGE.fullmatch(_words(payload, "PG", "payload"))
    if page is None:
        raise BadReading("the reading has no page: PG is T or F and a number")
    gateway, meter = _words(payload, "GS", "payload"), _words(payload, "MS", "payload")
    if not (gateway or meter):
        raise BadReading("the reading names no meter: neither GS nor MS is there")
    register, unit, readings = _readings(_said(payload.get("RD")))
    return OcmfRecord(text, found.payload, page[1], int(page[2]), gateway, meter, register, unit, readings)


def _words(fields: dict[str, Any], name: str, what: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadReading(f"the reading's {what} is malformed: {name} is no text")
    return value


def _said(entries: object) -> list[Said]:
    """The readings, each with what it has in common with the one before and does not repeat."""
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_READINGS:
        raise BadReading(f"the reading has no readings: RD is a list of 1 to {MAX_READINGS}")
    rows = [_checked(entry) for entry in entries]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SpecWarning)  # what matters of them is checked here
            return Payload.model_validate({"RD": rows}).RD
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadReading(f"the reading's payload is malformed at {where}") from None


def _checked(entry: object) -> dict[str, str]:
    """What is used of a reading's fields, where each is of its type and form.

    Raises:
        BadReading: one is not. An RV may be text, as some charge points write it.
    """
    if not isinstance(entry, dict):
        raise BadReading("the reading's payload is malformed: RD holds what is no object")
    row = {name: _words(entry, name, "payload") for name in ("TM", "TX", "RI", "RU", "EF", "ST") if name in entry}
    value = entry.get("RV")
    value = value.literal if isinstance(value, Number) else value
    if not isinstance(value, str) or not DECIMAL.fullmatch(value):
        raise BadReading(f"the register shows no number that can be billed: {repr(value)[:40]}")
    if "TM" in row and not _TIME.fullmatch(row["TM"]):
        raise BadReading(f"the reading's time is malformed: {row['TM'][:40]!r}")
    return {**row, "RV": value}


def _readings(said: list[Said]) -> tuple[str, str, tuple[OcmfReading, ...]]:
    """The readings of the register that is billed, with its name and unit.

    Raises:
        BadReading: the meter was not well, no import register is there, its unit changes, or it falls.
    """
    for one in said:
        _check_well(one)
    register = _register(said)
    billed = [one for one in said if str(one.RI) == register]
    unit = str(billed[0].RU)
    if unit not in SCALES or any(str(one.RU) != unit for one in billed):
        raise BadReading(f"register {register} is not read in kWh or Wh throughout")
    readings = tuple(_reading(one, SCALES[unit]) for one in billed)
    for before, after in pairwise(readings):
        if after.register < before.register or after.at < before.at:
            raise BadReading(
                f"the register or its clock falls within the reading: {shown(before)}, then {shown(after)}"
            )
    return register, unit, readings


def _check_well(one: Said) -> None:
    if one.ST is not MeterStatus.OK:
        raise BadReading(f"the meter was not well: its status is {str(one.ST)[:20]!r}, not 'G'")
    if one.EF:
        raise BadReading(f"the meter flags an error: {one.EF[:20]!r} cannot be billed any more")
    if one.TX and not isinstance(one.TX, MeterReadingReason):
        raise BadReading(f"the reading was taken for no reason that OCMF has: {str(one.TX)[:20]!r}")
    if one.TX is MeterReadingReason.EXCEPTION:
        raise BadReading("the meter flags an error: from this reading on, nothing can be billed")


def _register(said: list[Said]) -> str:
    """The register to bill by: of those of imported energy the first that runs on, or else the first that begins anew
    with each transaction."""
    names = [one.RI for one in said if _OBIS.fullmatch(str(one.RI)) and one.RI and one.RI.is_law_relevant]
    imports = [name for name in names if (info := get_obis_info(name.code)) and info.category is OBISCategory.IMPORT]
    if not imports:
        raise BadReading("the reading has no register of imported energy, such as 1-b:1.8.0")
    return str(next((name for name in imports if not name.is_transaction_register), imports[0]))


def _reading(said: Said, scale: int) -> OcmfReading:
    assert said.RV is not None  # `_checked` asks for it
    register = said.RV.scaleb(scale)
    at = (said.timestamp - _EPOCH) // _MILLISECOND
    if not 0 <= at <= MAX_INSTANT or register > _MOST:
        raise BadReading(f"the register shows {register} Wh at {at} ms, which nobody can bill")
    clock = said.time_status
    assert isinstance(clock, TimeStatus)  # `_TIME` has these letters alone
    return OcmfReading(register, Instant(at), clock.value, str(said.TX or ""))


def shown(reading: OcmfReading) -> str:
    """A reading as errors and people see it."""
    return f"{reading.register.normalize():f} Wh at {_EPOCH + reading.at * _MILLISECOND:%Y-%m-%dT%H:%M:%S}Z"
