"""Listens for silent peers on the many links of a server: a share of them at a time, on one timer for all."""

from __future__ import annotations

import asyncio

from penstock.transports.link import TlsLink

SLICES = 50  # shares of a third of the idle timeout; ten thousand pings at once would keep everybody waiting


class Rounds:
    """The open links of a server. Each is listened to once every `pause` seconds, while there are any."""

    def __init__(self, pause: float) -> None:
        self._pause = pause / SLICES
        self._slices: list[dict[TlsLink, None]] = [{} for _ in range(SLICES)]
        self._places: dict[TlsLink, dict[TlsLink, None]] = {}
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places)

    def links(self) -> list[TlsLink]:
        """All of them."""
        return [*self._places]

    def add(self, link: TlsLink) -> None:
        """Listen to this link from now on."""
        place = min(self._slices, key=len)
        place[link] = None
        self._places[link] = place
        if self._timer is None:
            self._wait()

    def discard(self, link: TlsLink) -> None:
        """The link is gone, if it was ever there."""
        place = self._places.pop(link, None)
        if place is not None:
            del place[link]
        if not self._places and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._listen)

    def _listen(self) -> None:
        place = self._slices[self._next]
        self._next = (self._next + 1) % SLICES
        self._wait()
        for link in [*place]:
            link.listen()
