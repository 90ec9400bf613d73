"""The register of a simulated line: a small file that the pole's process writes and the car's reads.

    offset  0   8 bytes   magic "PENSLINE"
            8   uint32    version, 1
           64   slot A    uint64 sequence, uint64 total, uint64 at (ms), int64 power (W), uint64 export,
                          uint32 CRC-32 of these
          128   slot B    the same

Integers are little-endian. Writes alternate between the slots, and a reader takes the higher sequence of those whose
checksum holds: a read that meets a write finds the other slot whole, and so does whoever comes after a writer that was
killed halfway. The file is read and written by `pread` and `pwrite` rather than mapped: a mapped file that is cut short
kills its reader with SIGBUS, where a short read can be told, and the call costs a microsecond.

What a car lets flow is kept in the same form (`permit.py`): there the two totals are what it allows.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from pathlib import Path

import msgspec

from penstock.core.errors import DeviceError

MAGIC = b"PENSLINE"
VERSION = 1
SIZE = 192
HEARTBEAT = 1.0  # s: a flow is written at least this often, so that a display moves and a stop shows

_HEADER = struct.Struct("<8sI52x")
_VALUES = struct.Struct("<QQQqQ")
_SLOT = struct.Struct("<QQQqQI20x")


class Entry(msgspec.Struct, frozen=True):
    """What the register shows: a running total (units of the medium), the instant (ms) and the power drawn (W).

    `export` is the total that was fed in; power below 0 is fed in, too.
    """

    sequence: int
    total: int
    at: int
    power: int
    export: int = 0


class Register:
    """An open line file. Made by `write_end` or `read_end`."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def write_end(cls, path: Path, holder: str = "pole") -> Register:
        """The pole's end; the file is made, with totals of 0, where there is none. Only one process holds it.

        `holder` is who writes, in words.

        Raises:
            DeviceError: another process holds this end, or the file cannot be opened or is no line.
        """
        register = cls(path, _open(path, os.O_RDWR | os.O_CREAT))
        try:
            try:
                # gone with the process, however that ends
                fcntl.flock(register._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                taken = f"line {path} has a {holder} already"
                raise DeviceError(taken, "stop that process or name another line") from None
            if os.fstat(register._descriptor).st_size == 0:
                fresh = _HEADER.pack(MAGIC, VERSION) + _slot(Entry(0, 0, 0, 0)) + _slot(Entry(1, 0, 0, 0))
                os.pwrite(register._descriptor, fresh, 0)
            register.read()
        except BaseException:
            register.close()
            raise
        return register

    @classmethod
    def read_end(cls, path: Path) -> Register:
        """The car's end.

        Raises:
            DeviceError: there is no such line, or it cannot be read.
        """
        register = cls(path, _open(path, os.O_RDONLY))
        try:
            register.read()
        except DeviceError:
            register.close()
            raise
        return register

    def read(self) -> Entry:
        """The newest entry.

        Raises:
            DeviceError: the file was cut short, or is no line.
        """
        for _ in range(100):  # both slots change during one read only where a writer outruns it
            raw = self._bytes()
            good = [entry for entry in (_entry(raw, 64), _entry(raw, 128)) if entry is not None]
            if good:
                return max(good, key=lambda entry: entry.sequence)
        raise self._broken("neither of its slots holds its checksum")

    def write(self, entry: Entry) -> None:
        """Show `entry`, whose sequence must be the next.

        Raises:
            DeviceError: the file cannot be written.
        """
        try:
            os.pwrite(self._descriptor, _slot(entry), 64 + 64 * (entry.sequence & 1))
        except OSError as error:
            raise DeviceError(f"cannot write line {self._path}: {error.strerror}", "free its disk") from None

    @property
    def closed(self) -> bool:
        """Whether the file was let go of."""
        return self._descriptor < 0

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _bytes(self) -> bytes:
        try:
            raw = os.pread(self._descriptor, SIZE, 0)
        except OSError as error:
            raise DeviceError(f"cannot read line {self._path}: {error.strerror}", "check its disk") from None
        if not raw:
            raise DeviceError(f"power line {self._path} is not set up yet", "start the pole first, on this path")
        if len(raw) < SIZE:
            raise self._broken(f"it has {len(raw)} bytes, not {SIZE}")
        if raw[:8] != MAGIC:
            raise self._broken("it does not begin as one")
        version = int.from_bytes(raw[8:12], "little")
        if version != VERSION:
            raise self._broken(f"its version is {version}, not {VERSION}")
        return raw

    def _broken(self, what: str) -> DeviceError:
        return DeviceError(
            f"{self._path} is no power line ({what})",
            "start the pole on a new path, or delete the file to count from 0",
        )


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except FileNotFoundError:
        raise DeviceError(f"there is no power line {path}", "start the pole first, on this path") from None
    except OSError as error:
        raise DeviceError(f"cannot open power line {path}: {error.strerror}", "name a file of yours") from None


def _slot(entry: Entry) -> bytes:
    values = (entry.sequence, entry.total, entry.at, entry.power, entry.export)
    return _SLOT.pack(*values, zlib.crc32(_VALUES.pack(*values)))


def _entry(raw: bytes, offset: int) -> Entry | None:
    *values, checksum = _SLOT.unpack_from(raw, offset)
    if zlib.crc32(raw[offset : offset + _VALUES.size]) != checksum:
        return None
    return Entry(*values)
