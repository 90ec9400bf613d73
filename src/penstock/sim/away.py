"""What works while the ledger is away: `penstock supply` and `penstock consume`, the devnet stopped in mid-session.

The devnet's process is stopped by SIGSTOP: it takes connections and answers nothing, as a node does that hangs. Then it
goes on, and what waited must be made up for.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from penstock.core.errors import LocalError
from penstock.ledgers.devnet.manifest import dev_key
from penstock.sim.charges import power_w
from penstock.sim.gauge import duration_ms
from penstock.sim.parts import PARTS
from penstock.sim.processes import Child, Event
from penstock.sim.scenes import POLE, Ground, flowed, flows, in_time
from penstock.storage import keystore

STREAMING = 2.0  # seconds that the session takes in whose midst the ledger goes
WAITED = 2.0  # seconds after which a session that has not begun does not begin without the ledger; others take 0.2
PAUSE = 0.1  # s between two looks at the ledger
MAKING_UP = 60.0  # seconds for what waited
SMALL = 25  # Wh of the returning car's sessions
PASSPHRASE = "compare"  # noqa: S105 -- the keys are a devnet's, which everybody knows
CARS = {"returning": 5, "visiting": 6, "strange": 7}  # and their keys


class Away(msgspec.Struct, frozen=True):
    """What went on without the ledger, and what came after it was back.

    `streams`: a session under way went on to a receipt that both signed. `reuses`, `begins`: a session began over a
    deposit that was there, over one that had to be made. `settles`: what a session brought reached the ledger.
    `reuses_later`, `settles_later`: so it did once the ledger was back. `transactions` are those of the car that came
    twice, for both its sessions.
    """

    streams: bool
    reuses: bool
    begins: bool
    settles: bool
    reuses_later: bool
    settles_later: bool
    transactions: int


class _Yard:
    """A pole and three cars, each a `penstock` process with a home of its own."""

    def __init__(self, ground: Ground, directory: Path) -> None:
        self._ground, self._directory = ground, directory
        self.line = directory / "line"
        passphrase = directory / "passphrase"
        passphrase.write_text(PASSPHRASE + "\n")
        self._common = [
            "--url", ground.url, PARTS[ground.rail].flag, ground.contract, "--rail", ground.rail,
            "--passphrase-file", str(passphrase), "--log", "json", "--json",
        ]  # fmt: skip

    async def pole(self) -> Child:
        charge = self._ground.charge
        self._home("pole", 0)
        return await self._ground.start(
            "pole", "penstock", "supply", *self._common, "--listen", "127.0.0.1:0", "--name", charge.station,
            "--price", "0.40", "--tick", "0.001", "--credit-ticks", "2", "--line", str(self.line),
            "--power-w", str(power_w(charge)), "--speed", str(max(1.0, duration_ms(charge) / 1000 / STREAMING)),
        )  # fmt: skip

    async def car(self, name: str, address: str, quantity: int, *flags: str) -> Child:
        self._home(name, CARS[name])
        return await self._ground.start(
            name, "penstock", "consume", address, *self._common, "--quantity", str(quantity), "--max-price", "0.45",
            "--budget", f"{max(quantity * 400, 2_000) / 10**6:.6f}", "--line", str(self.line), *flags,
        )  # fmt: skip

    def _home(self, name: str, key: int) -> None:
        home = self._ground.directory / name
        if not home.exists():
            home.mkdir(mode=0o700)
            keystore.create(home / "keys", name, PASSPHRASE, dev_key(key).secret, cost=keystore.LIGHT)


async def run_away(ground: Ground) -> Away:
    """Stop the ledger in mid-session, see what goes on, and let it go on again.

    Raises:
        PenstockError: a process failed that should not, or the session was over before the ledger could be stopped.
    """
    directory = ground.directory / "away"
    directory.mkdir(mode=0o700)
    yard, charge, first = _Yard(ground, directory), ground.charge, await ground.observer.height() + 1
    pole = await yard.pole()
    address = (await in_time(pole.event("listening"), "a pole"))["address"]
    keeping = ("--keep", "--deposit", f"{3 * SMALL * 400 / 10**6:.6f}")
    small = min(SMALL, charge.energy_wh)
    await (await yard.car("returning", address, small, *keeping)).answer()
    visiting = await yard.car("visiting", address, charge.energy_wh)
    await in_time(flows(yard.line, small + charge.energy_wh // 4), "the flow to the car")
    settled, (earned,) = ground.told["pole", "settled"], await ground.tokens(POLE)
    ground.devnet.process.send_signal(signal.SIGSTOP)
    try:
        if flowed(yard.line) >= small + charge.energy_wh:
            raise LocalError("the session was over before the ledger could be stopped", "choose a longer session")
        visited = await visiting.answer()
        returning = await yard.car("returning", address, small, *keeping)
        strange = await yard.car("strange", address, small)
        await in_time(returning.event("offered"), "an offer")
        reuses, begins = await asyncio.gather(_begins(returning), _begins(strange))
        settles = ground.told["pole", "settled"] > settled
        strange.process.kill()  # it would be in the other's way
    finally:
        ground.devnet.process.send_signal(signal.SIGCONT)
    settles_later = await _paid(ground, earned + visited["receipt"]["paid"])
    again = await _within(returning.answer(), MAKING_UP)
    pole.process.terminate()
    await pole.answer()
    payer = "0x" + dev_key(CARS["returning"]).address.hex()
    sights = await ground.observer.look(first)
    return Away(
        streams=visited["complete"] and visited["receipt"]["supplier_total"] == charge.energy_wh,
        reuses=reuses,
        begins=begins,
        settles=settles,
        reuses_later=again is not None and again["complete"],
        settles_later=settles_later,
        transactions=sum(payer in sight.said.values() or sight.sender == payer for sight in sights),
    )


async def _paid(ground: Ground, tokens: int) -> bool:
    """Whether the pole comes to own so many token units."""
    for _ in range(int(MAKING_UP / PAUSE)):
        if (await ground.tokens(POLE))[0] >= tokens:
            return True
        await asyncio.sleep(PAUSE)
    return False


async def _begins(car: Child) -> bool:
    return await _within(car.event("accepted"), WAITED) is not None


async def _within(coming: Awaitable[Event], seconds: float) -> Event | None:
    """What comes, or None where it does not come in that time."""
    try:
        return await asyncio.wait_for(coming, seconds)
    except TimeoutError:
        return None
