"""The devices that a medium flows through: a simulated line, or for data a forwarder of TCP connections."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from penstock.cli.config import endpoint, home, need
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.cli.config import ConsumeSection, SupplySection
    from penstock.core.ports import Carrier, Meter, TwoWayValve
    from penstock.core.units import Quantity
    from penstock.node.supplier import Pole
    from penstock.node.tell import Tell

DATA = "data"
_BYTES = re.compile(r"(?P<number>[0-9]{1,12}(\.[0-9]{1,12})?)(?P<power>[kMGT])B")
_POWERS: dict[str, int] = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000, "T": 1_000_000_000_000}


class Draw(NamedTuple):
    """What a consumer draws through: its meter, its carrier, what flows now (W, or bytes a second), and its valve,
    where it can feed in."""

    meter: Meter
    carrier: Carrier | None
    power: Callable[[], int]
    valve: TwoWayValve | None = None


def quantity_of(text: str) -> int | str:
    """A quantity as people write it: whole units of the medium, or bytes as in "1.5GB"; else the text, for refusal."""
    if text.isascii() and text.isdigit() and len(text) < 30:
        return int(text)
    found = _BYTES.fullmatch(text)
    if found is None:
        return text
    whole, _, part = found["number"].partition(".")
    power = _POWERS[found["power"]]
    return int(whole) * power + int(part or "0") * power // int("1" + "0" * len(part))


def at_loopback(address: str) -> str:
    """HOST:PORT from that, or from a port alone, which is one of this machine."""
    return f"127.0.0.1:{address}" if address.isdigit() else address


def feeds(section: SupplySection) -> bool:
    """Whether something may be fed in."""
    return section.feed_price is not None or section.feed_prices is not None


def need_supply(section: SupplySection) -> None:
    """Pass where the medium's device is named.

    Raises:
        UsageError: it is not.
    """
    _need(section.medium == DATA, "supply", section.line, forward=section.forward)
    if section.medium == DATA and section.sign is not None:
        raise UsageError("a forwarder signs no readings", "leave out --sign")


def need_draw(section: ConsumeSection) -> None:
    """Pass where the medium's device is named.

    Raises:
        UsageError: it is not.
    """
    _need(section.medium == DATA, "consume", section.line, listen=section.listen)


def _need(data: bool, name: str, line: str | None, **forwarder: str | None) -> None:
    ((key, value),) = forwarder.items()
    if data and line is not None:
        raise UsageError("data flows through no line", f"leave out --line, and give --{key}")
    if not data and value is not None:
        raise UsageError(f"--{key} forwards data, and another medium is meant", "give --medium data, or --line")
    need(value if data else line, name, key if data else "line")


@asynccontextmanager
async def supplied(section: SupplySection, step: Quantity, tell: Tell) -> AsyncIterator[Pole]:
    """The pole where the medium leaves; its meter tells every `step`. Let go of in the end.

    Raises:
        DeviceError: another process has the device, or it cannot be used.
    """
    from penstock.node.supplier import Pole

    name = section.name or "pole"
    if section.medium == DATA:
        from penstock.gateways.forwarder import DataSupply
        from penstock.node.clock import now

        target = endpoint(need(section.forward, "supply", "forward"))
        supply = DataSupply(target, home().path / "supplied.meter", step, now, tell)
        try:
            yield Pole(name, supply, supply, supply)
        finally:
            await supply.detach()
    else:
        from penstock.sim.line import LineSupply

        back = (section.feed_power or section.power_w) if feeds(section) else 0
        path = Path(need(section.line, "supply", "line"))
        line = LineSupply(path, section.power_w, section.speed, package=step, feed_w=back)
        try:
            if section.sign is None:
                yield Pole(name, line, line)
            else:
                from penstock.sim.signing_meter import SigningMeter

                meter = SigningMeter(line, Path(section.sign))
                try:
                    yield Pole(name, meter, line, signs=str(meter.key))
                finally:
                    meter.close()
        finally:
            line.detach()


@asynccontextmanager
async def drawn(section: ConsumeSection, meter_error: int, tell: Tell) -> AsyncIterator[Draw]:
    """What the consumer draws through. Let go of in the end.

    Raises:
        DeviceError: another process has the device, or it cannot be used. UsageError: applications cannot be let in.
    """
    if section.medium == DATA:
        from penstock.gateways.forwarder import DataMeter
        from penstock.node.clock import now

        host, port = endpoint(need(section.listen, "consume", "listen"))
        forwarder = DataMeter(home().path / "drawn.meter", now, tell)
        try:
            tell("forwarding", address=f"{host}:{await forwarder.listen(host, port)}")
            yield Draw(forwarder, forwarder, _Rate(lambda: forwarder.total))
        finally:
            await forwarder.detach()
    else:
        from penstock.sim.line import LineMeter

        line = LineMeter(Path(need(section.line, "consume", "line")), error_ppm=meter_error)
        try:
            yield Draw(line, None, line.power, line)
        finally:
            line.detach()


class _Rate:
    """How fast a total rises: units a second between two calls."""

    def __init__(self, total: Callable[[], int]) -> None:
        self._total = total
        self._seen, self._at = total(), time.monotonic()

    def __call__(self) -> int:
        total, now = self._total(), time.monotonic()
        rate = (total - self._seen) / max(0.001, now - self._at)
        self._seen, self._at = total, now
        return int(rate)
