"""A simulated meter that signs: OCMF records of what another meter counts, by a key that it keeps in a file."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from penstock.core.errors import BadReading, DeviceError
from penstock.core.meter import Reading
from penstock.core.ports import Meter
from penstock.gateways.ocmf import OcmfKey, OcmfReadings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MEMORY = struct.Struct(">Q32s")  # the next page, the secret of the key


class OcmfSigner:
    """Makes OCMF texts with a secp256r1 key. `page` is the next one; the same readings make the same text: RFC 6979."""

    __slots__ = ("_secret", "key", "page", "serial")

    def __init__(self, secret: int, serial: str = "PENSTOCK-1", page: int = 1) -> None:
        """`secret` is above 0 and below the group's order."""
        self._secret = derive_private_key(secret, SECP256R1())
        public = self._secret.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key = OcmfKey(public)
        self.serial = serial
        self.page = page

    def fiscal(self, reading: Reading) -> str:
        """A record of one reading outside transactions, and turn the page."""
        return self._record("F", [_row(reading, None)])

    def transaction(self, readings: Iterable[tuple[str, Reading]]) -> str:
        """A record of readings within a transaction, each with its reason (B, C, E ...), and turn the page."""
        return self._record("T", [_row(reading, reason) for reason, reading in readings])

    def _record(self, context: str, rows: list[dict[str, object]]) -> str:
        fields = {"FV": "1.0", "GI": "penstock", "GS": self.serial, "PG": f"{context}{self.page}", "RD": rows}
        text = self.sign(json.dumps(fields, separators=(",", ":")))
        self.page += 1
        return text

    def sign(self, payload: str) -> str:
        """The OCMF text of a payload, whatever that says."""
        signature = self._secret.sign(payload.encode(), ECDSA(SHA256(), deterministic_signing=True))
        return f'OCMF|{payload}|{{"SA":"ECDSA-secp256r1-SHA256","SD":"{signature.hex().upper()}"}}'


def _row(reading: Reading, reason: str | None) -> dict[str, object]:
    """A row of RD. Wh are written as kWh with three decimals, as text: a JSON encoder would write a float."""
    at = _EPOCH + timedelta(milliseconds=reading.at)
    row: dict[str, object] = {"TM": f"{at:%Y-%m-%dT%H:%M:%S},{at.microsecond // 1000:03d}+0000 S"}
    if reason is not None:
        row["TX"] = reason
    value = str(Decimal(reading.total).scaleb(-3))
    return {**row, "RV": value, "RI": "1-b:1.8.0", "RU": "kWh", "EF": "", "ST": "G"}


class SigningMeter:
    """The `Meter` that signs what another one (in Wh) reads: each of its readings comes with an OCMF record.

    Its key and its page are in the file `memory`, which is made where there is none, so that pages go on over restarts.
    """

    __slots__ = ("_descriptor", "_inner", "_path", "_readings", "_signer", "_watchers")

    def __init__(self, inner: Meter, memory: Path) -> None:
        """Sign what `inner` reads, beginning with what it shows now.

        Raises:
            DeviceError: the file cannot be opened or is no such memory, or `inner` does not answer.
        """
        self._inner, self._path = inner, memory
        shown = inner.read()
        try:
            self._descriptor = os.open(memory, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._signer = _remembered(self._descriptor, memory)
        except OSError as error:
            raise DeviceError(f"cannot open the meter's memory {memory}: {error.strerror}", "name a file") from None
        self._readings = OcmfReadings(self._signer.key)
        self._watchers: list[Callable[[Reading], None]] = []
        self._signed(shown)
        inner.watch(self._tell)

    @property
    def key(self) -> OcmfKey:
        """The meter's public key."""
        return self._signer.key

    def read(self) -> Reading:
        """The newest reading with its record; one that is newer than the last record is signed.

        Raises:
            DeviceError: the other meter does not answer or fell, or the file cannot be written.
        """
        return self._signed(self._inner.read())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` with each reading that the other meter tells, and its record."""
        self._watchers.append(on_reading)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _tell(self, reading: Reading) -> None:
        signed = self._signed(reading)
        for on_reading in self._watchers:
            on_reading(signed)

    def _signed(self, shown: Reading) -> Reading:
        """The reading with its record: the one that it has already, or a new one on the next page."""
        newest = self._readings.newest
        if newest is not None and (newest.reading.total, newest.reading.at) == (shown.total, shown.at):
            return newest.reading
        text = self._signer.fiscal(shown)
        try:  # before anybody hears of it: no page is ever used twice
            os.pwrite(self._descriptor, self._signer.page.to_bytes(8, "big"), 0)
            return self._readings.take(text).reading
        except OSError as error:
            raise DeviceError(
                f"cannot write the meter's memory {self._path}: {error.strerror}", "free its disk"
            ) from None
        except BadReading as error:
            raise DeviceError(f"the meter cannot sign what it reads: {error}", "replace it") from None


def _remembered(descriptor: int, path: Path) -> OcmfSigner:
    """The signer that the file remembers; a new one, with page 1, where the file is empty."""
    raw = os.pread(descriptor, _MEMORY.size + 1, 0)
    if not raw:
        secret = generate_private_key(SECP256R1()).private_numbers().private_value
        raw = _MEMORY.pack(1, secret.to_bytes(32, "big"))
        os.pwrite(descriptor, raw, 0)
    try:
        page, kept = _MEMORY.unpack(raw)
        return OcmfSigner(int.from_bytes(kept, "big"), page=page)
    except (struct.error, ValueError):
        os.close(descriptor)
        raise DeviceError(f"{path} is no meter's memory", "name another file, or one that is not there yet") from None
