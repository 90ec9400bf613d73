"""How a session stood over time, as samples in a file: for pictures, and to see later why power changed.

The file has one JSON object a line: first what the session is (`About`), then a `Sample` a line. Each line is written
by one call, so that whatever a killed process wrote is read again; what it was writing is cut off. A machine that loses
its power may lose the last samples: nothing rests on them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import msgspec

from penstock.core.errors import LocalError, UsageError
from penstock.core.units import MAX_AMOUNT

MOST = 500_000  # samples in a file: a day of more than five a second
LONGEST = 4_096  # bytes of a line
LONGEST_WHY = 200  # characters of a reason
LATEST = 253_402_300_799_999  # ms since 1970: the end of the year 9999, the last that dates are written with

At = Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Flow = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class About(msgspec.Struct, frozen=True):
    """What was sampled: a title, the token in which sums are, and the agreed limits of exposure (token units)."""

    title: str
    symbol: str
    decimals: Annotated[int, msgspec.Meta(ge=0, le=77)]
    limit_supplier: int
    limit_consumer: int


class Sample(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the session stands `at` an instant (ms since 1970).

    `power` is in W: above 0 to the consumer, below 0 back. `price` and `feed_price` are what a kWh costs to the
    consumer and back (token units; None where nothing can be fed in). `ticks`, `paid` and `total` (Wh) count what the
    consumer paid and got so far; `back_ticks`, `paid_back` and `export` what the supplier paid and got. What each side
    has at stake is in token units. `why` is the reason where power has changed for one, else "".
    """

    at: At
    power: Flow
    price: int
    feed_price: int | None
    ticks: Count
    back_ticks: Count
    paid: int
    paid_back: int
    exposure_supplier: int
    exposure_consumer: int
    total: Count
    export: Count
    why: str = ""


class Course(NamedTuple):
    """A session over time: its samples in order, at least one."""

    about: About
    samples: tuple[Sample, ...]


class SampleLog:
    """Appends samples to a file. One that is there already is gone on with: the session survived its process."""

    def __init__(self, path: Path, about: About) -> None:
        """Open the file, and write what the session is where nobody has.

        Raises:
            UsageError: the file cannot be opened, or holds something else.
            LocalError: it cannot be written.
        """
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from None
        try:
            head, whole, _ = os.pread(self._file, LONGEST, 0).partition(b"\n")
            if whole:
                _about(path, head)
                self._cut_torn_line()
            elif msgspec.json.encode(about).startswith(head):
                os.ftruncate(self._file, 0)
                self._write(about)
            else:
                raise _unusable(path, "it does not begin as a file of samples")
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, sample: Sample) -> None:
        """Add a sample; a reason is cut to what a line holds.

        Raises:
            LocalError: the disk does not take it. The file is as it was.
        """
        why = sample.why[:LONGEST_WHY].encode(errors="replace").decode()  # half of a character is no text
        self._write(msgspec.structs.replace(sample, why=why))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _write(self, line: About | Sample) -> None:
        before, raw = os.fstat(self._file).st_size, msgspec.json.encode(line) + b"\n"
        try:
            wrote = os.write(self._file, raw)
        except OSError as error:
            raise LocalError(f"cannot write {self._path}: {error.strerror}", "free its disk") from None
        if wrote < len(raw):
            os.ftruncate(self._file, before)
            raise LocalError(f"cannot write {self._path}: its disk is full", "free its disk")

    def _cut_torn_line(self) -> None:
        """Cut off what a killed process had begun to write."""
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, LONGEST, max(0, size - LONGEST))
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        os.ftruncate(self._file, size - torn)


def read_course(path: Path) -> Course:
    """The samples in a file. A last line that was not written to its end is left out; time never goes back.

    Raises:
        UsageError: the file cannot be read, is none of samples, or has none or too many.
    """
    try:
        if path.stat().st_size > MOST * LONGEST:
            raise _unusable(path, "it is too large")
        raw = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    head, *lines = raw[: raw.rfind(b"\n") + 1].splitlines() or [b""]
    about = _about(path, head)
    if not 1 <= len(lines) <= MOST:
        raise _unusable(path, f"it has {len(lines)} samples, 1 to {MOST} can be shown")
    samples: list[Sample] = []
    for number, line in enumerate(lines, start=2):
        try:
            sample = _sample_of(line)
        except msgspec.MsgspecError as error:
            raise _unusable(path, f"line {number}: {error}") from None
        if samples and sample.at < samples[-1].at:  # a clock was set back
            sample = msgspec.structs.replace(sample, at=samples[-1].at)
        samples.append(sample)
    return Course(about, tuple(samples))


def _sample_of(line: bytes) -> Sample:
    sample = msgspec.json.decode(line, type=Sample)
    sums = (sample.price, sample.feed_price or 0, sample.paid, sample.paid_back)
    if any(abs(sum_) > MAX_AMOUNT for sum_ in (*sums, sample.exposure_supplier, sample.exposure_consumer)):
        raise msgspec.ValidationError("a sum is beyond uint96")
    return sample


def _about(path: Path, line: bytes) -> About:
    try:
        about = msgspec.json.decode(line, type=About)
    except msgspec.MsgspecError as error:
        raise _unusable(path, f"it does not begin as a file of samples: {error}") from None
    if not all(0 < limit <= MAX_AMOUNT for limit in (about.limit_supplier, about.limit_consumer)):
        raise _unusable(path, "its limits are no sums of a token")
    return about


def _unusable(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} cannot be used for samples: {why}", "name another file")
