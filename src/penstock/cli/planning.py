"""A consumer's plan on the command line: `consume --energy 20 --by 07:00 --battery 12/8/60 --max-price 0.35`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from penstock.core.errors import OutOfRange, UsageError

if TYPE_CHECKING:
    from penstock.core.medium import Medium
    from penstock.core.plan import Plan
    from penstock.core.units import Instant
    from penstock.node.consumer import Wish

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Asked(NamedTuple):
    """The flags as they were given: energy and battery in kWh, powers in W."""

    energy: str
    by: str
    battery: str | None
    power_w: int
    feed_w: int


def plan_of(asked: Asked, wish: Wish, bought: Medium) -> Plan:
    """The plan that the flags name; prices are the wish's.

    Raises:
        UsageError: a flag is none, or they make no sense together.
    """
    from penstock.cli.goods import units
    from penstock.core.plan import Battery, Plan
    from penstock.node.clock import now

    energy = units(asked.energy, bought, "--energy")
    battery = Battery(0, 0, energy)
    if asked.battery is not None:
        parts = asked.battery.split("/")
        if len(parts) != 3:
            raise UsageError("--battery is three numbers", "what is in it, the least and the most, in kWh: 12/8/60")
        battery = Battery(*(units(part, bought, "--battery") for part in parts))
    feed_w = asked.feed_w if wish.feed else 0
    plan = Plan(energy, _instant(asked.by), wish.max_price, asked.power_w, battery, wish.min_feed, feed_w)
    try:
        plan.check()
    except OutOfRange as error:
        raise UsageError(str(error), "see --energy, --by, --battery and --power-w") from None
    if plan.by <= now():
        raise UsageError(f"--by {asked.by} has passed", "give a time to come")
    if energy > 0 and battery.now + energy > battery.most:
        raise UsageError(f"--energy {asked.energy} does not fit into --battery {asked.battery}", "ask for less")
    return plan


def _instant(text: str) -> Instant:
    """RFC 3339, or the next time that our clock shows HH:MM."""
    from penstock.core import series
    from penstock.core.errors import BadRates
    from penstock.core.units import Instant

    if found := _CLOCK.fullmatch(text):
        now = datetime.now().astimezone()
        then = now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
        then += timedelta(days=then <= now)
        return Instant(int(then.timestamp() * 1000))
    try:
        return series.instant(text)
    except BadRates:
        raise UsageError(f"--by {text[:40]!r} is no time", "give 07:00, or 2026-06-14T07:00:00+02:00") from None
