"""`penstock consume` by a thief: it takes all that it is given, and stops paying at `$PAID_UNTIL` token units."""

from __future__ import annotations

import os

from penstock.cli.main import run
from penstock.core.rail import Evidence
from penstock.rails import stream

_pay = stream.StreamPayer.pay


def pay(payer: stream.StreamPayer, upto: int) -> list[Evidence]:
    """As the rail does, until it is enough."""
    return _pay(payer, min(upto, int(os.environ["PAID_UNTIL"])))


stream.StreamPayer.pay = pay  # type: ignore[method-assign]  # everything else is the real consumer's

if __name__ == "__main__":
    run()
