"""Both sides of a session in one process, without any I/O: events go in, effects come out, and here is who runs them.

A supplier sells 500 Wh to a consumer. Journal, link, meter and valve are plain variables, and time is a number, so
that every step can be looked at. `examples/buy_and_sell.py` does the same with real parts.
"""

from __future__ import annotations

from collections import deque

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import encode
from penstock.core.effects import Allow, Continue, Effect, Persist, Send, ShutValve
from penstock.core.identity import Address, Key
from penstock.core.messages import Paid
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Offer, Terms, accept_digest, propose_digest
from penstock.core.rail import Ends
from penstock.core.session import Role, Session, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import Instant, Quantity
from penstock.rails.stream import NAME, StreamOffer, StreamPayee, StreamPayer, StreamTerms

SUPPLIER, CONSUMER = Key(b"\x01" * 32), Key(b"\x02" * 32)
NOW = Instant(1_700_000_000_000)
DEPOSIT = 1_000_000  # token units in the channel
SECRET = bytes(32)  # of the session's hash chains; a real one is random


def agree() -> tuple[Terms, StreamTerms]:
    """What both sides would sign: 0.40 a kWh in ticks of 0.001, with a credit of two ticks."""
    domain = Domain(31337, Address(b"\xcc" * 20), Address(b"\xee" * 20))
    opener, partner = CONSUMER.address, SUPPLIER.address
    channel = ChannelParams(domain, opener, partner, opener, partner, period=3_600, two_way=False, counter=0)
    offer = Offer(
        supplier=partner,
        name="pole",
        medium="electricity",
        tariff=Tariff.flat(400_000, 1_000),
        tick_value=1_000,
        package=3,
        credit_limit=2_000,
        mode="pay-after",
        tolerance=Tolerance(5, 20_000),
        rails={NAME: encode(StreamOffer(domain, partner, partner, 600))},
        meter="",
        expires=Instant(NOW + 60_000),
    )
    stream = StreamTerms(channel, nonce=0, amount=0, tick_value=offer.tick_value)
    terms = Terms(offer, opener, NAME, encode(stream), quantity_limit=500, budget=DEPOSIT, at=NOW, nonce=bytes(16))
    terms.check()
    return terms, stream


def stream() -> tuple[Session, Session]:
    """Run a session to its end; returns the supplier's and the consumer's side of it."""
    terms, channel = agree()
    proposed = CONSUMER.sign(propose_digest(terms.digest()))
    accepted = SUPPLIER.sign(accept_digest(terms.digest()))
    payee, payer = StreamPayee(channel, DEPOSIT), StreamPayer(channel, DEPOSIT, CONSUMER, SECRET)
    payee.take(payer.open().data)  # the first voucher: it promises nothing, and locks what ticks will claim
    start = Reading(Quantity(0), NOW)
    supplier, consumer = (
        Session(SessionRow(role, terms, proposed, accepted, start), ends, key, NOW)
        for role, ends, key in (
            (Role.SUPPLIER, Ends(None, payee), SUPPLIER),
            (Role.CONSUMER, Ends(payer, None), CONSUMER),
        )
    )

    link: deque[tuple[Session, Send]] = deque()
    journal: list[Persist] = []
    allowed = register = Quantity(0)

    def run(session: Session, effects: list[Effect]) -> None:
        nonlocal allowed
        for effect in effects:
            match effect:
                case Persist():
                    journal.append(effect)  # a real journal answers once it is durable; what follows waits for that
                case Send():
                    link.append((consumer if session is supplier else supplier, effect))
                case Allow(total):
                    allowed = total
                case Continue():
                    effects.extend(session.go_on(NOW))
                case ShutValve():
                    allowed = register
                    run(session, session.valve_shut(Reading(register, NOW), NOW))

    run(supplier, supplier.begin(NOW))
    run(consumer, consumer.begin(NOW))
    while link or register < allowed:
        if register < allowed:  # what is allowed flows, through both meters
            register = allowed
            for session in (consumer, supplier):
                run(session, session.on_reading(Reading(register, NOW), NOW))
        else:
            receiver, sent = link.popleft()
            if isinstance(sent.message, Paid):  # checked one by one, secured together: here each by itself
                receiver.on_paid(sent.message)
                run(receiver, receiver.secure(NOW))
            else:
                run(receiver, receiver.on_message(sent.message, NOW))
    return supplier, consumer


if __name__ == "__main__":
    for side in stream():
        assert side.receipt is not None
        print(
            f"{side.role}: {side.reason}, {side.meter.total} Wh, {side.receipt.paid} token units in {side.ticks} "
            f"ticks, at most {side.control.worst} at risk, receipt signed by both: {side.complete}"
        )
