"""Poles without a throttle that works are held back whole where a site's limit does not bear them."""

from __future__ import annotations

from typing import Any

from penstock.core.errors import DeviceError
from penstock.node.sharing import Limits, Outlet, SiteLimit

POWER = 11_000  # W


class Stuck:
    """A throttle that takes nothing."""

    def limit(self, supply: int | None, feed: int | None) -> None:
        raise DeviceError("the throttle does not answer")


def site(*outlets: Outlet) -> SiteLimit:
    def tell(event: str, **facts: Any) -> None:
        pass

    return SiteLimit(outlets, tell)


def test_an_emergency_holds_a_pole_that_cannot_be_throttled() -> None:
    heard: list[Limits] = []
    limit = site(Outlet("a", None, POWER, POWER))
    limit.begin("a", heard.append)
    limit.set(0, 0, "an emergency")
    assert heard == [Limits(0, 0)]
    limit.set(POWER, None, "it is over")
    assert heard[-1] == Limits(None, None)


def test_an_emergency_holds_a_pole_whose_throttle_fails() -> None:
    heard: list[Limits] = []
    limit = site(Outlet("a", Stuck(), POWER, POWER))
    limit.begin("a", heard.append)
    limit.set(0, 0, "an emergency")
    assert heard == [Limits(0, 0)]
    assert limit.of("a") == Limits(0, 0)


def test_two_poles_without_a_throttle_do_not_draw_more_than_the_limit_together() -> None:
    limit = site(Outlet("a", None, POWER), Outlet("b", None, POWER))
    limit.begin("a")
    limit.begin("b")
    limit.set(POWER + 1, None, "the grid says so")
    assert [limit.of(name).supply for name in "ab"] == [None, 0]
