"""The comparison: the same real session over every rail, and what it takes, risks and shows.

Each rail has a devnet of its own. On it play a car that stops paying halfway, two meters that lie, an honest session,
one in whose midst the ledger goes away, and one whose supplier vanishes. Each car comes for the first time; the pole of
the honest session has been paid before. Everything runs at full speed: supply uses whatever it is allowed at once,
which is the worst that timing can bring, and makes two runs agree; wall-clock figures stand apart under `time`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.units import Price
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.sender import MARGIN
from penstock.node.rails import RAILS
from penstock.rails import escrow, stream
from penstock.sim.away import Away, run_away
from penstock.sim.charges import Charge, power_w
from penstock.sim.deduction import Deduction, deduce
from penstock.sim.gauge import duration_ms
from penstock.sim.observer import Sight
from penstock.sim.pole import CREDIT, PRICE, TOLERANCE
from penstock.sim.scenes import Ground, Scene, Watch

GWEI = 10**9
ETHER = 10**18
DECIMALS = 6  # of the crypto euro
WORD = 32
HONEST, ALONE = 4, 8  # the accounts of the honest car, and of the one whose pole vanishes
RUN = 4  # zero bytes in a row that are no accident of a signature
NEAR = 3 * 86_400  # seconds between a transaction and a time that it names
_ZEROS = re.compile(b"\0+")

COMPARED = (stream.NAME, escrow.NAME)  # both between two; over hubs there are more players

STOPS = "a consumer that stops paying halfway"
CREEPS = "a meter too fast, just within tolerance"
JUMPS = "a meter that lies halfway, and no supply"


class Rates(msgspec.Struct, frozen=True):
    """What gas costs: its price in wei a unit, and the token units that an ether costs."""

    gas_price: int
    ether: int

    def cost(self, gas: int) -> int:
        """Token units for so much gas, rounded up."""
        return -(-gas * self.gas_price * self.ether // ETHER)


async def run_comparison(
    charge: Charge, rates: Rates, directory: Path, watch: Watch, rails: Sequence[str] = COMPARED
) -> dict[str, Any]:
    """Play everything over each of the rails, with homes, chains and lines in `directory`; returns the figures as JSON.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    rows = [await _row(rail, charge, rates, directory / rail, watch) for rail in rails]
    price: Price = PRICE.price(0)
    return {
        "session": charge.session_id,
        "energy_wh": charge.energy_wh,
        "power_w": power_w(charge),
        "duration_s": duration_ms(charge) // 1_000,
        "bill": price.cost(charge.energy_wh),
        "price": {"amount": price.amount, "per": price.per},
        "decimals": DECIMALS,
        "gas_price_wei": rates.gas_price,
        "ether": rates.ether,
        "credit_limit": CREDIT,
        "tolerance": {"units": TOLERANCE.units, "ppm": TOLERANCE.ppm},
        "rails": rows,
    }


async def _row(rail: str, charge: Charge, rates: Rates, directory: Path, watch: Watch) -> dict[str, Any]:
    began = time.monotonic()
    async with Ground(rail, charge, directory, watch) as ground:
        stops = await ground.play("stops", 1, pays=False)
        creeps = await ground.play("creeps", 2, meter="creeps")
        jumps = await ground.play("jumps", 3, meter="jumps")
        honest = await ground.play("honest", HONEST)
        away = await run_away(ground)
        alone = await ground.vanish("vanishes", ALONE)
    bill = PRICE.price(0).cost(charge.energy_wh)
    gas = sum(map(typical_gas, honest.sights))
    return {
        "rail": rail,
        "declared": msgspec.to_builtins(RAILS[rail]),
        "paid": honest.earned,
        "ticks": honest.sold["ticks"],
        "reason": honest.sold["reason"],
        "transactions": [_transaction(sight) for sight in honest.sights],
        "gas": gas,
        "cost": rates.cost(gas),
        "share_of_bill": round(rates.cost(gas) / bill, 4),
        "further_sessions": _further(away, honest),
        "transactions_before_first_wh": honest.before,
        "exposure": {
            "supplier": _exposure(honest.sold, [_cheat(STOPS, stops, rates, _unpaid(stops))]),
            "consumer": _exposure(
                honest.bought,
                [_cheat(what, scene, rates, _overpaid(scene)) for what, scene in ((CREEPS, creeps), (JUMPS, jumps))],
            ),
        },
        "observer": {"in order": _shown(deduce(honest.sights)), "after a cheat": _shown(_together(stops, jumps))},
        "away": {name: value for name, value in msgspec.to_builtins(away).items() if name != "transactions"},
        "locked": _locked(honest, alone, charge),
        "series": {"supplier": honest.sold["series"], "consumer": honest.bought["series"]},
        "first_steps": honest.sold["steps"],
        "time": {
            "first_wh_s": round(honest.first_wh_s, 2),
            "gas_used": [sight.gas for sight in honest.sights],
            "blocks_at": [sight.at for sight in honest.sights],
            "wall_s": round(time.monotonic() - began, 1),
        },
    }


def typical_gas(sight: Sight) -> int:
    """What such a transaction takes in gas, whatever its signatures happen to be; to the nearest hundred.

    A zero byte of calldata takes 12 gas less than any other (EIP-2028). Signatures and hashes have some by accident;
    here they count as others do, so that two runs agree; so do those in times. Zeros that fill a word up are left as
    they are: runs of four or more, and of twelve before an address. Where refunds have reached their bound, a fifth of
    all gas (EIP-3529), a byte changes what is paid by four fifths.
    """
    body = _without_times(sight.calldata[4:], sight.at)
    accidents = sight.calldata[4:].count(0) - body.count(0)
    for start in range(0, len(body), WORD):
        word = body[start : start + WORD]
        leading = len(word) - len(word.lstrip(b"\0"))
        regular = 12 if 12 < leading < 16 else leading if leading >= RUN else 0
        accidents += sum(len(zeros) for zeros in _ZEROS.findall(word[regular:]) if len(zeros) < RUN)
    bounded = sight.gas * MARGIN <= 0.801 * sight.limit  # the limit is at least a MARGIN above the gas before refunds
    return int(round(sight.gas + 12 * accidents * (0.8 if bounded else 1), -2))


def _without_times(body: bytes, at: int) -> bytes:
    """Calldata with every time near `at` (seconds) free of zero bytes: in seconds (4 bytes), or milliseconds (6).

    A time is within a word: what ends one and the zeros that fill up the next are none.
    """
    found = bytearray(body)
    for size, unit in ((4, 1), (6, 1_000)):
        for start in range(len(body)):
            time = body[start : start + size]
            if (
                start % WORD <= WORD - size
                and time[0]
                and 0 in time
                and abs(int.from_bytes(time, "big") - at * unit) < NEAR * unit
            ):
                found[start : start + size] = time.replace(b"\0", b"\1")
    return bytes(found)


def _transaction(sight: Sight) -> dict[str, Any]:
    sender = {"0x" + dev_key(0).address.hex(): "supplier", "0x" + dev_key(HONEST).address.hex(): "consumer"}[
        sight.sender
    ]
    return {"what": sight.function.replace("_", " "), "sender": sender, "gas": typical_gas(sight)}


def _unpaid(scene: Scene) -> int:
    """What the supplier supplied and was not paid for (token units)."""
    return max(0, PRICE.price(0).cost(scene.sold["flowed"]) - scene.earned)


def _overpaid(scene: Scene) -> int:
    """What the consumer paid and was not supplied with (token units)."""
    return max(0, scene.spent - PRICE.price(0).cost(scene.sold["flowed"]))


def _exposure(report: dict[str, Any], cheats: list[dict[str, Any]]) -> dict[str, Any]:
    return {"honest": report["worst"], "cheated": max(cheat["loss"] for cheat in cheats), "cheats": cheats}


def _cheat(what: str, scene: Scene, rates: Rates, loss: int) -> dict[str, Any]:
    gas = sum(map(typical_gas, scene.sights))
    return {
        "cheat": what,
        "loss": loss,
        "ended": scene.sold["reason"],
        "transactions": [sight.function.replace("_", " ") for sight in scene.sights],
        "gas": gas,
        "cost": rates.cost(gas),
    }


def _further(away: Away, honest: Scene) -> dict[str, Any]:
    """What each session after the first takes: nothing where one deposit serves many, all of it where it serves one."""
    shared = away.transactions < 2 * honest.before
    return {
        "transactions": 0 if shared else len(honest.sights),
        "gas": 0 if shared else sum(map(typical_gas, honest.sights)),
        "seen": {"sessions": 2, "transactions": away.transactions},  # of a consumer that came twice
    }


def _shown(deduction: Deduction) -> dict[str, Any]:
    known = {name: msgspec.to_builtins(fact) for name, fact in deduction.facts.items()}
    return {
        "facts": known,
        "pairs": [list(pair) for pair in deduction.pairs],
        "unknown": deduction.unknown(),
        "transactions": len(deduction.times),
    }


def _together(*scenes: Scene) -> Deduction:
    return deduce([sight for scene in scenes for sight in scene.sights])


def _locked(honest: Scene, alone: list[Sight], charge: Charge) -> dict[str, Any]:
    """What the consumer had to put in, for how long, and how long it waited alone where the supplier vanished.

    It waits between its last transaction before and the one that brought the rest back; to the minute.
    """
    return {
        "tokens": deduce(honest.sights).facts["deposit"].values[0],
        "session_s": duration_ms(charge) // 1_000,
        "alone_s": round((alone[-1].at - alone[-2].at) / 60) * 60,
        "alone": [sight.function.replace("_", " ") for sight in alone],
    }
