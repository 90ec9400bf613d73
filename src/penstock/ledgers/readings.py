"""Readings as they were filed: from the logs of the contract, for who wants to contest them."""

from __future__ import annotations

import msgspec

from penstock.core.errors import BadSignature
from penstock.core.escrow import EscrowParams, MeterReading, SignedReading
from penstock.core.identity import recover
from penstock.ledgers.abi import Interface
from penstock.ledgers.jsonrpc import Node
from penstock.ledgers.logs import logged_since


async def filed_since(node: Node, interface: Interface, params: EscrowParams, since: int) -> list[SignedReading]:
    """The readings of an escrow that its meter signed and that were filed at `since` (seconds) or later, oldest first.

    The contract logs each whose claim waits (`Filed`), whoever called it.
    """
    found: list[SignedReading] = []
    for log in await logged_since(node, params.domain.contract, (interface.topic("Filed"), params.id), since):
        signed = signed_in(interface, log.data)
        if signed is not None and signed not in found and _is_meters(params, signed):
            found.append(signed)
    return found


def signed_in(interface: Interface, data: bytes) -> SignedReading | None:
    """The signed reading in a log's data; None where there is none."""
    event = interface.event(interface.topic("Filed"), data)
    if event is None:
        return None
    reading, (r, vs) = event[1]
    try:
        said = msgspec.convert(reading, MeterReading)
    except msgspec.ValidationError:
        return None
    s = vs & (2**255 - 1)
    return SignedReading(said, r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + (vs >> 255)]))


def _is_meters(params: EscrowParams, signed: SignedReading) -> bool:
    try:
        return recover(signed.reading.digest(params), signed.signature) == params.meter
    except BadSignature:
        return False
