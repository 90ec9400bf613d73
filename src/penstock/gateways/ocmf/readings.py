"""One meter's records in their order: what may follow what."""

from __future__ import annotations

from penstock.core.errors import BadReading
from penstock.gateways.ocmf.key import OcmfKey
from penstock.gateways.ocmf.record import BEGIN, ENDS, OcmfReading, OcmfRecord, shown, verify


class OcmfReadings:
    """Takes the records of one meter, one after the other. The first one says which meter, register and unit it is.

    `every` says that all of the meter's records come by here, as at its own gateway: a page that is left out is then
    refused, as OCMF counts pages without gaps. A peer is shown one record a payment at most, and asks only that pages
    rise. After a restart, take the last record of before first: what is older stays refused.
    """

    __slots__ = ("_began", "_every", "key", "newest")

    def __init__(self, key: OcmfKey, *, every: bool = True) -> None:
        self.key = key
        self.newest: OcmfRecord | None = None
        self._every = every
        self._began: OcmfReading | None = None

    def take(self, text: bytes | str) -> OcmfRecord:
        """Take the next record.

        Raises:
            BadReading: as `check`. Nothing has changed.
        """
        record = self.check(text)
        self.accept(record)
        return record

    def check(self, text: bytes | str) -> OcmfRecord:
        """The record that `text` is, where it may come next. Nothing changes.

        Raises:
            BadReading: it does not verify (`verify`), is another meter's, or is replayed, reordered or re-paged; its
                unit or register is another; register or clock fall; or it is of a transaction that is not going on.
        """
        record = verify(text, self.key)
        if self.newest is not None:
            _check_source(record, self.newest)
            self._check_page(record, self.newest)
            self._check_course(record, self.newest.last)
        return record

    def accept(self, record: OcmfRecord) -> None:
        """Make a record that `check` has passed the newest one."""
        self.newest = record
        if record.readings[0].reason == BEGIN:
            self._began = record.readings[0]

    def _check_page(self, record: OcmfRecord, newest: OcmfRecord) -> None:
        here, before = f"{record.context}{record.page}", f"{newest.context}{newest.page}"
        if record.context != newest.context:
            raise BadReading(f"the reading is re-paged: {here} is of another context than {before}")
        if record.page < newest.page:
            raise BadReading(f"the reading is replayed or reordered: page {here} comes after {before}")
        if record.page == newest.page and record.payload == newest.payload:
            raise BadReading(f"the reading is replayed: page {here} has been taken already")
        if record.page == newest.page:
            raise BadReading(f"the reading is re-paged: page {here} has been taken already, and said something else")
        if self._every and record.page > newest.page + 1:
            raise BadReading(f"the reading is re-paged, or pages are missing: {here} comes after {before}")

    def _check_course(self, record: OcmfRecord, newest: OcmfReading) -> None:
        """Register and clock go on from the newest reading. A record may tell its transaction's begin again."""
        first, ended = record.readings[0], newest.reason in ENDS
        if ended and first.reason != BEGIN:
            raise BadReading("the reading comes after its transaction's end", "a new transaction starts with a begin")
        told_again = first.reason == BEGIN and not ended and newest.reason != ""
        if told_again and self._began is not None and first != self._began:
            raise BadReading(f"the reading is another transaction's: it began with {shown(first)}")
        start = record.last if told_again else first
        if start.register < newest.register:
            raise BadReading(f"the register fell: {shown(newest)}, then {shown(start)}")
        if start.at < newest.at:
            raise BadReading(f"the meter's clock fell: {shown(newest)}, then {shown(start)}")


def _check_source(record: OcmfRecord, newest: OcmfRecord) -> None:
    if (record.gateway, record.meter) != (newest.gateway, newest.meter):
        names = f"{record.gateway[:40]!r} {record.meter[:40]!r}, not {newest.gateway[:40]!r} {newest.meter[:40]!r}"
        raise BadReading(f"the reading is of another meter: {names}")
    if record.unit != newest.unit:
        raise BadReading(f"the reading's unit changed from {newest.unit} to {record.unit}")
    if record.register != newest.register:
        raise BadReading(f"the reading's register changed from {newest.register[:40]} to {record.register[:40]}")
