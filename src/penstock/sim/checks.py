"""What must always hold (DESIGN section 7), checked from outside while the real node runs.

The checks look at disks, wires, cables and the chain, never at what the code under test believes. The first violation
is kept; the world stops at its next step. `audit_site` and `audit_cars` look over the shoulders of the two sides,
`audit_end` at what is left when all is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.watcher import worth
from penstock.node import book
from penstock.node.book import CHANNEL_ROWS
from penstock.rails.stream import EARNED_ROWS, TICK_ROWS
from penstock.sim.audit_cars import CarAudit
from penstock.sim.audit_end import audit_end
from penstock.sim.audit_site import SiteAudit
from penstock.sim.chain import Block
from penstock.sim.disk import Disk

if TYPE_CHECKING:
    from penstock.sim.world import World


class Violation(AssertionError):
    """Something that must always hold does not."""


class Checks:
    """The checks of one world."""

    def __init__(self, world: World) -> None:
        self.violation: Violation | None = None
        self.world = world
        self.site = SiteAudit(self)
        self.cars = CarAudit(self)
        self._tokens = 0
        self._worths: dict[tuple[int, bytes], tuple[bytes | None, bytes | None, int]] = {}

    def fail(self, what: str) -> None:
        """Something does not hold."""
        if self.violation is None:
            self.violation = Violation(what)
            self.world.trace("checks", "VIOLATION", what=what)

    def step(self) -> None:
        """Whenever time is about to pass.

        Raises:
            Violation: something does not hold.
        """
        if self.violation is not None:
            raise self.violation
        self.site.step()
        self.cars.step()

    def block(self, block: Block) -> None:
        """A block was made: no token is made or lost."""
        tokens = block.accounts.tokens
        if self._tokens and tokens != self._tokens:
            self.fail(f"conservation: there were {self._tokens} token units, now {tokens}")
        self._tokens = tokens

    def final(self) -> None:
        """Everything is settled, and every honest party has what it is owed, to the last unit."""
        audit_end(self)

    def check_over(self, disk: Disk, keys: list[bytes]) -> None:
        """A channel that a disk now holds for settled is so where no reorganisation reaches."""
        for key in keys:
            known = book.channel_of(disk, key.removeprefix(CHANNEL_ROWS)) if key.startswith(CHANNEL_ROWS) else None
            if known is not None and known.settled:
                state = self.world.chain.final.accounts.channels.get(known.params.id)
                if state is None or state.status != "ended":
                    self.fail(f"final: channel {known.params.id.hex()[:8]} is held for settled, and may come back")

    def secured(self, disk: Disk, channel: bytes) -> int:
        """What a payee's disk is worth in a channel (token units)."""
        rows = disk.rows.get(EARNED_ROWS + channel), disk.rows.get(TICK_ROWS + channel)
        kept = self._worths.get((id(disk), channel))
        if kept is None or kept[:2] != rows:
            evidence = book.evidence_of(disk, channel)
            kept = self._worths[id(disk), channel] = (*rows, int(worth(evidence.filing if evidence else None)))
        return kept[2]
