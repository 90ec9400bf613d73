"""What happens in a round, from its seed: how much is bought, how it is paid, who is killed and when."""

from __future__ import annotations

import random
from typing import NamedTuple

PHASES = {"opening": 25, "stream": 40, "end": 15, "settlement": 20}  # weights; in the order in which they come
SPANS = {"opening": 0.5, "stream": 0.9, "end": 0.06, "settlement": 0.15, "restart": 0.3, "resume": 0.05}  # s
ENDING = 0.1  # s that an end in order may have taken when the kill comes
VICTIMS = {"supplier": 32, "consumer": 32, "both": 22, "devnet": 14}
BLOCK = 20  # rounds that one way of paying lasts


class Strike(NamedTuple):
    """Whom to kill, in which phase, and how long after the phase begins (s); early more often than late.

    `asked` is how long before that (s) the victims are asked to end by SIGTERM; None: they are not.
    """

    phase: str
    victims: tuple[str, ...]
    delay: float
    asked: float | None = None


class Plan(NamedTuple):
    """A round. Everything in it follows from its seed; the machine's scheduler adds the rest."""

    seed: str
    quantity: int
    mode: str
    strikes: tuple[Strike, ...]


def plan(seed: int, number: int) -> Plan:
    """Round `number` (0..) of a run."""
    name = f"{seed}/{number}"
    chance = random.Random(name)
    mode = "pay-before" if number // BLOCK % 3 == 2 else "pay-after"
    strikes = []
    phases = chance.choices([*PHASES], [*PHASES.values()], k=chance.choice((1, 1, 1, 2, 2, 3)))
    for phase in sorted(phases, key=[*PHASES].index):
        victim = chance.choices([*VICTIMS], [*VICTIMS.values()])[0]
        victims = ("supplier", "consumer") if victim == "both" else (victim,)
        asked = chance.random() ** 2 * ENDING if chance.random() < 0.15 and victim != "devnet" else None
        strikes.append(Strike(phase, victims, SPANS[phase] * chance.random() ** 2, asked))
        while chance.random() < 0.3:  # and once more while it comes back
            again = chance.choice(("restart", "resume"))
            strikes.append(Strike(again, victims, SPANS[again] * chance.random() ** 2))
    return Plan(name, chance.randint(300, 2_200), mode, tuple(strikes))
