"""What a car lets flow through a simulated line: a file beside the line's own, which only the car's process writes.

    <line>.car    the totals up to which the car lets each register run, in the form of a register (`register.py`)
    <line>.call   a FIFO: a byte in it says that the file beside it has changed

The FIFO makes a permission reach the pole's process at once, with no polling, and says whether the car's is there at
all: the system closes its end however that process ends, and the pole then reads the end of the stream. A permission
in the file counts only while somebody has the FIFO open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from penstock.core.errors import DeviceError
from penstock.sim.register import Entry, Register

_LOG = logging.getLogger(__name__)
_SHUT = (0, 0)


def _file(line: Path) -> Path:
    return line.with_name(line.name + ".car")


def _fifo(line: Path) -> Path:
    return line.with_name(line.name + ".call")


class Permit:
    """The car's end. Nothing is allowed at first; only one process holds it."""

    __slots__ = ("_call", "_line", "_register", "_sequence")

    def __init__(self, line: Path) -> None:
        """
        Raises:
            DeviceError: another process holds this end, or the files cannot be made or are something else.
        """
        self._line = line
        self._register = Register.write_end(_file(line), "car")
        try:
            self._sequence = self._register.read().sequence
            self._write(*_SHUT)  # before the pole can see that we are there: what the last one allowed is void
            self._call = _open_call(_fifo(line))
        except BaseException:
            self._register.close()
            raise

    def set(self, total: int, export: int) -> None:
        """Let each register run up to its total (Wh), as the pole counts.

        Raises:
            DeviceError: the file cannot be written.
        """
        self._write(total, export)
        with suppress(BlockingIOError):  # it is full: the pole has not read the calls before this one
            os.write(self._call, b"!")

    def shut(self) -> None:
        """Let nothing flow.

        Raises:
            DeviceError: the file cannot be written.
        """
        self.set(*_SHUT)

    def close(self) -> None:
        """Let nothing flow, and go."""
        try:
            self.shut()
        finally:
            os.close(self._call)
            self._register.close()

    def _write(self, total: int, export: int) -> None:
        self._sequence += 1
        self._register.write(Entry(self._sequence, total, 0, 0, export))


def _open_call(path: Path) -> int:
    try:
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # Both ends: a FIFO opened for writing alone needs a reader, and the pole may come later than the car.
        call = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DeviceError(f"cannot open {path}: {error.strerror}", "name a line of yours") from None
    if not stat.S_ISFIFO(os.fstat(call).st_mode):
        os.close(call)
        raise DeviceError(f"{path} is no FIFO", "delete it, or name another line")
    return call


class Permits:
    """The pole's end: what the car on a line allows now, if there is one. `on_call()` is called when that changes.

    Files that are none of ours allow nothing, and are logged once.
    """

    __slots__ = ("_call", "_line", "_logged", "_loop", "_on_call", "_register")

    def __init__(self, line: Path, on_call: Callable[[], None]) -> None:
        self._line, self._on_call = line, on_call
        self._call = -1  # the FIFO, while a car has it open
        self._register: Register | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._logged = ""

    @property
    def here(self) -> bool:
        """Whether a car was there when we looked last."""
        return self._call >= 0

    def look(self) -> tuple[int, int]:
        """The totals (Wh) up to which the car lets import and export run now; nothing where there is no car.

        Needs a running event loop.
        """
        if self._call >= 0 and not _open_elsewhere(self._call):
            self.close()
        try:
            if self._call < 0 and not self._connect():
                return _SHUT
            assert self._register is not None
            entry = self._register.read()
        except DeviceError as error:
            self._log(error.line())
            self.close()
            return _SHUT
        return entry.total, entry.export

    def close(self) -> None:
        """Look no more, until the next `look`."""
        if self._call >= 0:
            assert self._loop is not None
            self._loop.remove_reader(self._call)
            os.close(self._call)
            self._call = -1
        if self._register is not None:
            self._register.close()
            self._register = None

    def _connect(self) -> bool:
        """Whether a car is there; then we hear its calls from now on."""
        try:
            call = os.open(_fifo(self._line), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DeviceError(f"cannot open {_fifo(self._line)}: {error.strerror}", "delete it") from None
        try:
            if not stat.S_ISFIFO(os.fstat(call).st_mode):
                raise DeviceError(f"{_fifo(self._line)} is no FIFO", "delete it")
            if not _open_elsewhere(call):
                os.close(call)
                return False
            self._register = Register.read_end(_file(self._line))
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(call, self._on_call)
        except BaseException:
            os.close(call)
            raise
        self._call = call
        return True

    def _log(self, line: str) -> None:
        if line != self._logged:
            self._logged = line
            _LOG.error("%s", line)


def _open_elsewhere(call: int) -> bool:
    """Take the calls that have come; whether somebody has the FIFO open who could make more."""
    try:
        while calls := os.read(call, 4096):
            if len(calls) < 4096:
                return True
    except BlockingIOError:
        return True
    return False
