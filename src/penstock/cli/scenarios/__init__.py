"""What `penstock demo` plays. Each scenario is a module with a `SCENARIO`, and is imported only when it is played."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts
    from penstock.sim.cast import Demo, Watch
    from penstock.sim.charges import Charge

PLAIN = "plain"
SCENARIOS = {
    PLAIN: "penstock.cli.scenarios.plain",
    "v2g": "penstock.cli.scenarios.v2g",
    "price": "penstock.cli.scenarios.price",
    "grid": "penstock.cli.scenarios.grid",
    "hops": "penstock.cli.scenarios.hops",
    "offline": "penstock.cli.scenarios.offline",
}


class Setting(NamedTuple):
    """What is played: a real charge, how many times faster than it was, over which rail.

    `chart` is the file that a plot page goes to, None where nobody asked for one; `kept` says that the directory stays.
    `hubs` is over how many of them it goes, where it goes over any.
    """

    charge: Charge
    speed: float
    rail: str
    chart: Path | None
    kept: bool = False
    hubs: int = 0


class View(AbstractContextManager["View"], Protocol):
    """What is seen while it runs."""

    def on_event(self, who: str, event: str, facts: dict[str, Any]) -> None:
        """One event of one process."""


class Scenario(NamedTuple):
    """One scenario: what it plays where nobody says so, how, how it looks meanwhile, and what is said in the end.

    `play(setting, directory, watch)` keeps homes, chain and lines in the directory; it gives figures, and what did not
    agree. `view(setting, live, silent)` is live on a terminal, lines elsewhere, and nothing where it is silent.
    `summary` has the lines for people, and `agreed` is the last of them where all agrees. `charts` says whether it
    writes a plot page, and `hubs` over how many hubs it goes at most.
    """

    session: str
    speed: float
    rails: tuple[str, ...]
    play: Callable[[Setting, Path, Watch], Awaitable[Demo]]
    view: Callable[[Setting, bool, bool], View]
    summary: Callable[[dict[str, Any], TokenFacts], list[str]]
    agreed: str
    charts: bool = False
    hubs: int = 0


def scenario(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SCENARIOS:
        raise UsageError(f"there is no scenario {name[:40]!r}", f"one of {', '.join(SCENARIOS)}")
    found: Scenario = import_module(SCENARIOS[name]).SCENARIO
    return found
