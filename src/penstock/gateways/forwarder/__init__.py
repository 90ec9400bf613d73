"""Data as a medium: TCP connections that are forwarded over a session's own link, metered and paid for.

An application connects to the consumer's end (`DataMeter`); the supplier's end (`DataSupply`) connects to the one
address that the supplier forwards to, and is meter and valve of the session. A unit is a byte of payload, in either
direction.

Both ends run the code of `End`. The supplier's counts what it lets pass: bytes towards the consumer when it hands
them to the link, bytes from the consumer when it passes them on, which it tells at once (TAKEN). The consumer's counts
what it hears of that: DATA and TAKEN. Frames and the session's messages share one ordered link, so that both totals are
the same at every reading that the supplier announces, with no tolerance.

What was under way when a link broke is counted at the supplier's end alone. It may not count less: a consumer that
breaks links would be served for nothing. That is at most what the credit limit is worth, since no more is ever let pass
without payment, and it is what the tolerance of an offer of data is for (`tolerance`).
"""

from penstock.gateways.forwarder.end import tolerance
from penstock.gateways.forwarder.meter import DataMeter
from penstock.gateways.forwarder.supply import DataSupply

__all__ = ["DataMeter", "DataSupply", "tolerance"]
