"""A running total that outlives its process: what a meter in software keeps in a file.

    offset  0   8 bytes   magic "PENCOUNT"
            8   uint64    total, in units of the medium
           16   uint64    the instant (ms) of the last change
           24   uint32    CRC-32 of the 24 bytes before

Integers are little-endian. The file is written whole, by one `pwrite` within one sector: whoever is killed leaves the
old bytes or the new ones. It is not mapped, since a mapped file that is cut short kills its reader with SIGBUS. Writes
are not synced: after a power cut a meter may have fallen, which ends the session that it counted for, and no other.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from pathlib import Path

from penstock.core.errors import DeviceError

MAGIC = b"PENCOUNT"
_FIELDS = struct.Struct("<8sQQ")
_SIZE = _FIELDS.size + 4


class Count:
    """An open file with a total, held by this process alone."""

    __slots__ = ("_descriptor", "_path", "at", "total")

    def __init__(self, path: Path) -> None:
        """Hold the file `path`, which is made, with a total of 0, where there is none.

        Raises:
            DeviceError: another process holds it, it cannot be opened, or it is no such file.
        """
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise DeviceError(f"cannot open the meter {path}: {error.strerror}", "check its owner and mode") from None
        self.total = self.at = 0
        try:
            self._hold()
        except BaseException:
            self.close()
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however that ends
        except OSError:
            raise DeviceError(f"another process counts with the meter {self._path}", "stop that process") from None
        try:
            raw = os.pread(self._descriptor, _SIZE + 1, 0)
        except OSError as error:
            raise DeviceError(f"cannot read the meter {self._path}: {error.strerror}", "check its disk") from None
        if not raw:
            self.write(0, 0)
            return
        sound = len(raw) == _SIZE and zlib.crc32(raw[:-4]) == int.from_bytes(raw[-4:], "little")
        if not sound or raw[:8] != MAGIC:
            raise DeviceError(
                f"{self._path} is no meter's total, or it is damaged",
                "move it away to count from 0; a session that was counting with it ends without a bill",
            )
        _, self.total, self.at = _FIELDS.unpack(raw[:-4])

    def write(self, total: int, at: int) -> None:
        """Show `total` as of `at`.

        Raises:
            DeviceError: the file cannot be written.
        """
        fields = _FIELDS.pack(MAGIC, total, at)
        try:
            os.pwrite(self._descriptor, fields + zlib.crc32(fields).to_bytes(4, "little"), 0)
        except OSError as error:
            raise DeviceError(f"cannot write the meter {self._path}: {error.strerror}", "free its disk") from None
        self.total, self.at = total, at

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
