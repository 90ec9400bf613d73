"""Devices as the kit takes them: a simulated line, the simulation's cable, a meter that signs, and data."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from penstock.core.identity import Key
from penstock.core.meter import Tolerance
from penstock.core.units import Instant, Quantity
from penstock.gateways.forwarder import DataMeter, DataSupply
from penstock.node.clock import now
from penstock.sim.cable import Cable, Socket
from penstock.sim.car_meter import CarMeter, CarValve, MeterFaults
from penstock.sim.gauge import Gauge, Heard, Truth
from penstock.sim.life import Life
from penstock.sim.line import LineMeter, LineSupply
from penstock.sim.signing_meter import SigningMeter
from penstock.sim.virtual import VirtualLoop
from penstock.testing.meter import Device
from penstock.testing.two_way import Ends
from penstock.transports.tls import TlsLink, connect, serve

HOST = "127.0.0.1"
SUPPLIER, CONSUMER = Key(b"\1" * 32), Key(b"\2" * 32)
NONE = Tolerance(0, 0)


class LineFlow:
    """A line, at full speed or at one, and the car's meter on it."""

    step, tolerance = 25, NONE

    def __init__(self, directory: Path, speed: float | None = None) -> None:
        self.line, self._speed = directory / "line", speed
        self.meter: LineMeter | None = None

    async def open(self) -> Device:
        self.supply = LineSupply(
            self.line, 11_000, self._speed, package=Quantity(self.step), clock=lambda: Instant(1_551_425_700_000)
        )
        self.meter = self.meter or LineMeter(self.line)
        return Device(self.supply, self.supply, self.meter)

    async def end(self) -> None:
        self.supply.detach()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.end()
        if self.meter is not None:
            self.meter.detach()


class TwoWayLine:
    """A line through which either end may feed, at full speed or at one."""

    step, tolerance = 25, NONE

    def __init__(self, directory: Path, speed: float | None = None) -> None:
        self.line, self._speed = directory / "line", speed
        self.supply: LineSupply | None = None
        self.car: LineMeter | None = None

    async def open(self) -> Ends:
        self.supply = self.supply or LineSupply(
            self.line, 11_000, self._speed, package=Quantity(self.step), feed_w=10_000
        )
        self.car = self.car or LineMeter(self.line)
        return Ends(self.supply, self.supply, self.car, self.car, self.supply)

    async def end(self) -> None:
        if self.supply is not None:
            self.supply.detach()
            self.supply = None

    async def leave(self) -> None:
        if self.car is not None:
            self.car.detach()
            self.car = None


class SigningFlow(LineFlow):
    """The same, and what the pole's meter reads is signed."""

    signing: SigningMeter | None = None

    async def open(self) -> Device:
        device = await super().open()
        self.signing = SigningMeter(self.supply, self.line.with_name("memory"))
        return device._replace(meter=self.signing)

    async def end(self) -> None:
        await super().end()
        if self.signing is not None:
            self.signing.close()
            self.signing = None


class GaugeFlow(LineFlow):
    """The same, seen through a gauge that tells the truth of it, to a car that has heard all."""

    heard: Heard | None = None

    async def open(self) -> Device:
        device = await super().open()
        self.heard = Heard(self.line.parent)
        gauge = Gauge(self.supply, Truth(), self.heard, lambda: 0, lambda _: None)
        return device._replace(meter=gauge, valve=gauge)

    async def end(self) -> None:
        await super().end()
        if self.heard is not None:
            self.heard.close()
            self.heard = None


class CableFlow:
    """The simulation's cable, in virtual time; the cable and the car's meter outlive the pole's process."""

    step, tolerance = 25, NONE

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._cable = Cable(loop, loop.instant, rate=500)
        self._cable.plug(True)
        self._car = CarMeter(loop.instant, MeterFaults())
        self._car.plug(self._cable)

    async def open(self) -> Device:
        self.life = Life("pole", self._loop)
        socket = Socket(self._cable, self.life, self.step, MeterFaults())
        return Device(socket, socket, self._car)

    async def end(self) -> None:
        self.life.end()


class TwoWayCable(CableFlow):
    """The same, and the car has a valve, too."""

    pole: Life | None = None
    car: Life | None = None

    async def open(self) -> Ends:  # type: ignore[override] # both of its ends, not three things of one
        if self.car is None:
            self.car = Life("car", self._loop)
            self.valve = CarValve(self._car, self.car)
        if self.pole is None:
            self.pole = Life("pole", self._loop)
            self.socket = Socket(self._cable, self.pole, self.step, MeterFaults())
        return Ends(self.socket, self.socket, self._car, self.valve, self.socket)

    async def end(self) -> None:
        if self.pole is not None:
            self.pole.end()
            self.pole = None

    async def leave(self) -> None:
        if self.car is not None:
            self.car.end()
            self.car = None


class DataFlow:
    """An application that reads without end from what a supplier forwards to, over real connections."""

    step, tolerance = 50_000, NONE

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> Device:
        if self._reading is None:
            await self._begin()
        supplied = self._directory / "supplied"
        self.supply = DataSupply(self._source.sockets[0].getsockname()[:2], supplied, Quantity(self.step), now, _tell)
        self._link = await connect(HOST, self._server.port, CONSUMER)
        self._link.attach(self.meter.on_frame, lambda _: self.meter.part())
        self.meter.join(self._link)
        return Device(self.supply, self.supply, self.meter)

    async def end(self) -> None:
        self._link.close()
        self.meter.part()
        await self.supply.detach()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.end()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            await self.meter.detach()
            await self._server.close()
            self._source.close()

    async def _begin(self) -> None:
        self._source = await asyncio.start_server(_pour, HOST, 0)
        self._server = await serve(HOST, 0, SUPPLIER, self._on_link)
        self.meter = DataMeter(self._directory / "drawn", now, _tell)
        self._reading = asyncio.create_task(_drink(await self.meter.listen(HOST, 0)))

    def _on_link(self, link: TlsLink) -> None:
        supply = self.supply
        link.attach(supply.on_frame, lambda _: supply.part())
        supply.join(link)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send without end."""
    with suppress(ConnectionError):
        while True:
            writer.write(bytes(16_384))
            await writer.drain()


async def _drink(port: int) -> None:
    """Take without end, from a new connection where one was cut."""
    while True:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                while await reader.read(65_536):
                    pass
            finally:
                writer.close()
        await asyncio.sleep(0.01)


def _tell(event: str, **facts: object) -> None:
    """Nobody asks what happened."""
