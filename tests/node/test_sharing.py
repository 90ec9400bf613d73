"""A site's limit holds for all its poles together, at once, and is shared fairly among those with a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import OutOfRange, UsageError
from penstock.core.units import Instant, Quantity
from penstock.node.sharing import Limits, Outlet, SiteLimit
from penstock.sim.line import LineSupply
from penstock.sim.virtual import VirtualLoop

POWER, LEAST = 11_000, 4_140  # W
MUCH = Quantity(10**12)


class Watched:
    """A line's throttle that hears of every limit before the next is set."""

    def __init__(self, line: LineSupply, on_limit: Callable[[], None]) -> None:
        self._line, self._on_limit = line, on_limit

    def limit(self, supply: int | None, feed: int | None) -> None:
        self._line.limit(supply, feed)
        self._on_limit()


class Yard:
    """Poles with lines that run in virtual time, whose powers are known after every single change."""

    def __init__(self, directory: Path, names: str, least: int = 0, **powers: int) -> None:
        self.told: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.sums: list[int] = []
        self.lines = {
            name: LineSupply(
                directory / name, powers.get(name, POWER), 1.0, package=Quantity(100), clock=lambda: Instant(0)
            )
            for name in names
        }
        outlets = [
            Outlet(name, Watched(line, lambda: self.sums.append(sum(self.powers))), powers.get(name, POWER), 0, least)
            for name, line in self.lines.items()
        ]
        self.limit = SiteLimit(outlets, self._tell)

    @property
    def powers(self) -> list[int]:
        """What flows now through each line (W)."""
        return [line.power() for line in self.lines.values()]

    def begin(self, name: str) -> None:
        """A session begins, and draws all that it may."""
        self.limit.begin(name)
        self.lines[name].allow(MUCH)

    def end(self, name: str) -> None:
        self.lines[name].close()
        self.limit.end(name)

    def _tell(self, event: str, **facts: Any) -> None:
        if event == "limited":
            self.told.append(facts)
        else:
            self.failed.append(event)

    def close(self) -> None:
        self.limit.close()
        for line in self.lines.values():
            line.detach()


def in_virtual_time(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    VirtualLoop().run(play())


def test_a_limit_is_in_force_at_once_and_shared_by_the_poles_in_use(tmp_path: Path) -> None:
    async def play() -> None:
        yard = Yard(tmp_path, "abcd", c=3_700)
        for name in "abc":
            yard.begin(name)
        assert yard.powers == [POWER, POWER, 3_700, 0]
        yard.limit.set(20_000, None, "the grid says so")
        assert yard.powers == [8_150, 8_150, 3_700, 0]
        assert yard.told == [
            {"pole": "a", "supply": 8_150, "feed": None, "why": "the grid says so"},
            {"pole": "b", "supply": 8_150, "feed": None, "why": "the grid says so"},
            {"pole": "c", "supply": 3_700, "feed": None, "why": "the grid says so"},
        ]
        yard.limit.set(0, 0, "an emergency")
        assert yard.powers == [0, 0, 0, 0]
        yard.limit.set(None, None, "the emergency is over")
        assert yard.powers == [POWER, POWER, 3_700, 0]
        yard.close()

    in_virtual_time(play)


def test_shares_follow_sessions_that_begin_and_end_and_never_exceed_the_limit_meanwhile(tmp_path: Path) -> None:
    async def play() -> None:
        yard = Yard(tmp_path, "abc")
        yard.limit.set(15_000, None, "grid")
        steps: list[tuple[Callable[[str], None], str, list[int]]] = [
            (yard.begin, "a", [11_000, 0, 0]),
            (yard.begin, "b", [7_500, 7_500, 0]),
            (yard.begin, "c", [5_000, 5_000, 5_000]),
            (yard.end, "a", [0, 7_500, 7_500]),
            (yard.end, "b", [0, 0, 11_000]),
            (yard.end, "c", [0, 0, 0]),
        ]
        for step, name, powers in steps:
            step(name)
            assert yard.powers == powers
        assert max(yard.sums) <= 15_000, "the site drew more than its limit between two changes"
        assert yard.limit.of("a") == Limits(0, None), "nothing flows where there is no session"
        yard.close()

    in_virtual_time(play)


def test_what_falls_is_set_before_what_rises(tmp_path: Path) -> None:
    async def play() -> None:
        yard = Yard(tmp_path, "ab", least=LEAST)
        yard.limit.set(2 * LEAST - 1, None, "grid")
        yard.begin("a")
        yard.begin("b")
        assert yard.powers == [2 * LEAST - 1, 0]
        for _ in range(4):
            await asyncio.sleep(901)
        assert max(yard.sums) <= 2 * LEAST - 1
        yard.close()

    in_virtual_time(play)


def test_whoever_waits_gets_its_turn_and_all_wait_alike(tmp_path: Path) -> None:
    async def play() -> None:
        yard = Yard(tmp_path, "abc", least=LEAST)
        for name in "abc":
            yard.begin(name)
        yard.limit.set(9_000, None, "grid")
        assert yard.powers == [4_500, 4_500, 0]
        assert [yard.limit.waits(name) for name in "abc"] == [False, False, True]
        assert yard.told[-1] == {"pole": "c", "supply": 0, "feed": None, "why": "grid; waits for its turn"}
        for powers in ([4_500, 0, 4_500], [0, 4_500, 4_500], [4_500, 4_500, 0]):
            await asyncio.sleep(900.1)
            assert yard.powers == powers
        for _ in range(27):
            await asyncio.sleep(900.1)
        drawn = [line.read().total for line in yard.lines.values()]
        assert max(drawn) - min(drawn) <= 4_500 // 4 + 2, "a quarter of an hour apart, at most"
        yard.limit.set(20_000, None, "grid")
        assert not any(yard.limit.waits(name) for name in "abc")
        powers = yard.powers
        await asyncio.sleep(10_000)
        assert yard.powers == powers, "where nobody waits there are no turns"
        yard.close()

    in_virtual_time(play)


def test_a_newcomer_takes_no_power_from_those_who_draw_and_waits_for_its_turn(tmp_path: Path) -> None:
    async def play() -> None:
        yard = Yard(tmp_path, "abc", least=LEAST)
        yard.limit.set(5_000, None, "grid")
        yard.begin("c")
        yard.begin("b")
        assert yard.powers == [0, 0, 5_000]
        for _ in range(5):
            await asyncio.sleep(900.1)
        before = yard.powers
        yard.begin("a")
        assert yard.powers == before
        seen = set()
        for _ in range(3):
            await asyncio.sleep(900.1)
            seen.add(tuple(yard.powers))
        assert seen == {(5_000, 0, 0), (0, 5_000, 0), (0, 0, 5_000)}
        yard.close()

    in_virtual_time(play)


def test_supply_and_feed_are_shared_apart(tmp_path: Path) -> None:
    lines = {name: LineSupply(tmp_path / name, POWER, package=Quantity(1), feed_w=6_000) for name in "ab"}
    limit = SiteLimit([Outlet(name, line, POWER, 6_000) for name, line in lines.items()], lambda *_, **__: None)
    for name in "ab":
        limit.begin(name)
    limit.set(10_000, 3_001, "grid")
    assert limit.of("a") == Limits(5_000, 1_501)
    assert limit.of("b") == Limits(5_000, 1_500)
    limit.set(None, 0, "grid")
    assert limit.of("a") == limit.of("b") == Limits(None, 0)
    for line in lines.values():
        line.detach()


def test_a_pole_that_cannot_be_throttled_comes_off_the_others(tmp_path: Path) -> None:
    async def play() -> None:
        yard = Yard(tmp_path, "abc")
        for name in "abc":
            yard.begin(name)
        yard.lines["b"].detach()  # its throttle raises from now on
        yard.limit.set(15_000, None, "grid")
        assert yard.powers == [2_000, 0, 2_000], "it might draw its 11000 W still"
        assert yard.failed == ["valve failed"]
        yard.limit.set(10_000, None, "grid")
        assert yard.powers == [0, 0, 0]
        assert yard.failed == ["valve failed"], "once is enough"
        yard.limit.end("b")
        assert yard.powers == [5_000, 0, 5_000]
        yard.close()

    in_virtual_time(play)

    lines = {name: LineSupply(tmp_path / f"other {name}", POWER, package=Quantity(1)) for name in "a"}
    limit = SiteLimit([Outlet("a", lines["a"], POWER), Outlet("dumb", None, 7_000)], lambda *_, **__: None)
    limit.begin("a")
    limit.begin("dumb")
    limit.set(15_000, None, "grid")
    assert limit.of("a") == Limits(8_000, None)
    assert limit.of("dumb") == Limits()
    lines["a"].detach()


def test_a_session_hears_of_its_own_poles_limits_alone(tmp_path: Path) -> None:
    lines = {name: LineSupply(tmp_path / name, POWER, package=Quantity(1)) for name in "ab"}
    limit = SiteLimit([Outlet(name, line, POWER) for name, line in lines.items()], lambda *_, **__: None)
    heard: list[Limits] = []
    limit.begin("a", heard.append)
    limit.begin("elsewhere", heard.append)
    assert heard == []
    limit.set(10_000, None, "grid")
    limit.set(10_000, None, "grid, again")
    limit.begin("b")
    limit.set(0, None, "grid")
    limit.end("a")
    limit.set(None, None, "grid")
    assert heard == [Limits(10_000, None), Limits(5_000, None), Limits(0, None)]
    for line in lines.values():
        line.detach()


def test_absurd_limits_and_poles_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two poles"):
        SiteLimit([Outlet("a", None, 1)] * 2, lambda *_, **__: None)
    limit = SiteLimit([], lambda *_, **__: None)
    limit.set(5, 5, "grid")
    with pytest.raises(OutOfRange):
        limit.set(-1, None, "grid")
    assert limit.limits == Limits(5, 5)
