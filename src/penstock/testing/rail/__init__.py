"""What every payment method must do: ten properties of a rail's two ends and its ledger, as checks against any rail.

Write one `RailSetup` (penstock.testing.rail.setup), and give each property a fresh one, or run them all:

    @pytest.mark.parametrize("rule", RAIL_PROPERTIES, ids=lambda rule: rule.name)
    def test_a_rail_conforms(rule):
        ...
        if reason := rule.skipped(setup.capabilities):
            pytest.skip(reason)
        await rule.check(setup)

A check passes, or raises AssertionError with what was not kept. What does not apply to a rail says why, by the rail's
own capabilities.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from penstock.core.rail import Capabilities
from penstock.testing.rail.exits import a_crash_changes_no_result, a_stale_close_is_refuted, each_side_gets_out_alone
from penstock.testing.rail.money import a_claim_never_falls, conservation, exposure_is_bounded, replay_yields_nothing
from penstock.testing.rail.papers import a_changed_field_is_refused, everything_means_the_same_everywhere
from penstock.testing.rail.reversal import a_flow_turns_round
from penstock.testing.rail.setup import Books, BothFunds, Coded, Ends, Funds, RailSetup, Shares, Signed

__all__ = [
    "RAIL_PROPERTIES",
    "Books",
    "BothFunds",
    "Coded",
    "Ends",
    "Funds",
    "Property",
    "RailSetup",
    "Shares",
    "Signed",
    "check_rail",
]

Check = Callable[[RailSetup], Awaitable[None]]


def _always(_: Capabilities) -> str:
    return ""


def _refutable(capabilities: Capabilities) -> str:
    return "" if capabilities.refutable else f"what ends a session on the {capabilities.name} rail is final at once"


def _two_way(capabilities: Capabilities) -> str:
    return "" if capabilities.direction == "two-way" else f"the {capabilities.name} rail pays one way"


class Property(NamedTuple):
    """One of the ten. `skipped` says why it does not apply to a rail of such capabilities; "" where it does."""

    number: int
    check: Check
    skipped: Callable[[Capabilities], str] = _always

    @property
    def name(self) -> str:
        """What holds, in words."""
        return f"{self.number} {self.check.__name__}".replace("_", " ")


RAIL_PROPERTIES: tuple[Property, ...] = (
    Property(1, conservation),
    Property(2, a_claim_never_falls),
    Property(3, exposure_is_bounded),
    Property(4, replay_yields_nothing),
    Property(5, a_changed_field_is_refused),
    Property(6, a_stale_close_is_refuted, _refutable),
    Property(7, each_side_gets_out_alone),
    Property(8, a_crash_changes_no_result),
    Property(9, everything_means_the_same_everywhere),
    Property(10, a_flow_turns_round, _two_way),
)


async def check_rail(setup: RailSetup, say: Callable[[str], object] = print) -> None:
    """Check every property that applies, and say of each whether it held or why it was skipped."""
    for rule in RAIL_PROPERTIES:
        reason = rule.skipped(setup.capabilities)
        if not reason:
            await rule.check(setup)
        say(f"{setup.capabilities.name}: {rule.name}: {f'skipped: {reason}' if reason else 'holds'}")
