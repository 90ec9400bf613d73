"""What a machine in `core` orders the shell to do. A machine returns these in the order in which they must happen.

What follows a `Persist` waits until it is durable. One exception: `ShutValve` is never made to wait, and it voids
every `Allow` that is still waiting.
"""

from __future__ import annotations

import msgspec

from penstock.core.messages import Message
from penstock.core.units import Quantity

Rows = tuple[tuple[bytes, bytes | None], ...]
"""Journal rows: key and value; None deletes."""


class Persist(msgspec.Struct, frozen=True):
    """Make these rows durable together."""

    rows: Rows


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a message over the session's link; where there is none it is dropped, and resumption repairs it."""

    message: Message


class Allow(msgspec.Struct, frozen=True):
    """Let the supply run until the meter's import register reaches `total` (units of the medium).

    In a session whose flow may turn round, `export` is how far the export register may run; None in all others.
    """

    total: Quantity
    export: Quantity | None = None


class ShutValve(msgspec.Struct, frozen=True):
    """Close the valve at once, then report the register's reading to `Session.valve_shut`."""


class Continue(msgspec.Struct, frozen=True):
    """More is due than one turn of the loop should do: call `Session.go_on` in the next, so that this leaves first."""


class Ended(msgspec.Struct, frozen=True):
    """The session is over; its outcome is in the session. Release link, valve and meter."""


Effect = Persist | Send | Allow | ShutValve | Continue | Ended
