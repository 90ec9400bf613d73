"""Prices from a file, which is read again when it changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.core.errors import BadRates, PricesUnreachable
from penstock.core.series import MAX_SERIES, Rates
from penstock.gateways.prices.source import Reader, Vouched

LOOK = 2.0  # seconds between two looks at a file's time


class FileSource:
    """A series in a file. Whoever writes it should write another one and rename it: half a file is refused."""

    def __init__(self, path: Path, vouched: Vouched | None = None) -> None:
        self.name = str(path)
        self.again = LOOK
        self._path, self._reader = path, Reader(vouched)
        self._seen: tuple[int, ...] = ()
        self._rates: Rates | None = None

    async def rates(self) -> Rates:
        """The series in the file as it is now.

        Raises:
            PricesUnreachable: it cannot be read. BadRates: it is none of ours.
        """
        return await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> Rates:
        try:
            facts = self._path.stat()
            seen = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if self._rates is not None and seen == self._seen:
                return self._rates
            with self._path.open("rb") as file:
                data = file.read(MAX_SERIES + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "no such name"
            raise PricesUnreachable(f"cannot read the prices in {self.name}: {why}", "check the file") from None
        try:
            rates = self._reader.read(data)
        except BadRates as error:
            raise BadRates(f"{self.name}: {error}", error.advice) from None
        self._rates, self._seen = rates, seen
        return rates
