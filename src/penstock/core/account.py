"""What two sides owe each other by their meters, what each has paid, and how far flow and payment may go on.

Two sums grow with what flows, and each is rounded down once: `due`, which the consumer owes (supply at prices above 0,
feed-in at prices below), and `owed`, which the supplier owes (the other way round). Each side pays its own sum over its
own direction of the rail. What one owes is netted against what the other does: nobody pays while the balance is in its
favour, so that a flow that turns round first works off what it left unpaid.

The control unit sees it so, on either side: what we gave is what flowed from us and what we paid, what we got is what
flowed to us and what is secured.
"""

from __future__ import annotations

from penstock.core.control import Control
from penstock.core.errors import BadReading
from penstock.core.messages import Way
from penstock.core.offer import Terms
from penstock.core.rail import Ends, Evidence, PayeeEnd, PayerEnd
from penstock.core.tariff import Bill
from penstock.core.units import MAX_QUANTITY, Amount, Duration, Instant, Quantity

Turns = tuple[Quantity, ...]
SOON = Duration(60_000)  # as far as two clocks may be apart


class Account:
    """One side's view. `total` and `export` are always the session's: import and export since it began."""

    __slots__ = (
        "_ahead", "_budget", "_limit", "_per", "_tick", "bill", "control", "feed", "first_trust", "payee", "payer",
        "received", "supplies",
    )  # fmt: skip

    def __init__(self, terms: Terms, supplies: bool, ends: Ends, turns: Turns = (), feed_turns: Turns = ()) -> None:
        """`supplies` says that we are the session's supplier; the turns are those made so far.

        Raises:
            BadTerms: turns that no bill could have made.
        """
        offer = terms.offer
        self.supplies = supplies
        self.payer: PayerEnd | None = ends.payer
        self.payee: PayeeEnd | None = ends.payee
        self.bill = Bill(offer.tariff, turns)
        self.feed = Bill(terms.feed.tariff, feed_turns) if terms.feed is not None else None
        self._per = offer.tariff.per
        self._ahead = offer.mode == "pay-before"
        self._budget, self._limit, self._tick = terms.budget, terms.quantity_limit, offer.tick_value
        # Whoever goes first in a direction has the credit limit of that direction, and the other side none there.
        direction = offer if supplies != self._ahead else terms.feed
        limit, first = (direction.credit_limit, direction.first_trust) if direction is not None else (0, 0)
        self.first_trust = first
        self.received = (
            self.payee.secured if self.payee is not None else Amount(0)
        )  # and durable, before it is acted on
        self.control = Control(limit, first)

    # ---- sums

    def due(self, total: int, export: int) -> Amount:
        """What the consumer owes for these totals in all."""
        if self.feed is None:
            return self.bill.due(total)
        return Amount((self.bill.exact(total)[0] + self.feed.exact(export)[1]) // self._per)

    def owed(self, total: int, export: int) -> Amount:
        """What the supplier owes for these totals in all."""
        if self.feed is None:
            return Amount(0)
        return Amount((self.bill.exact(total)[1] + self.feed.exact(export)[0]) // self._per)

    def net(self, total: int, export: int) -> int:
        """What the consumer owes once both sums are set off; below 0 where the supplier owes."""
        return self.due(total, export) - self.owed(total, export)

    @property
    def paid(self) -> Amount:
        """What we have paid."""
        return self.payer.paid if self.payer is not None else Amount(0)

    @property
    def capacity(self) -> Amount:
        """The most that we can pay in all."""
        return self.payer.capacity if self.payer is not None else Amount(0)

    @property
    def feed_turns(self) -> Turns:
        """The turns of the bill for what is fed in."""
        return self.feed.turns if self.feed is not None else ()

    def take_up(self, bill: Bill, feed: Bill | None) -> bool:
        """Go on with bills that have turned while we were apart. Returns whether they did."""
        turned = bill.turns != self.bill.turns or (feed is not None and feed.turns != self.feed_turns)
        self.bill, self.feed = bill, feed
        return turned

    def receive(self) -> bool:
        """Count what was paid to us; its rows come before all that rests on it. Returns whether it is more."""
        if self.payee is None:
            return False
        before, self.received = self.received, self.payee.secured
        return self.received > before

    # ---- what flowed and what was paid

    def flowed_from_us(self, total: int, export: int) -> None:
        """Note what we have let go: what flowed from us, by these totals, and what we paid."""
        if self.feed is None:
            self.control.give(self.bill.due(total) if self.supplies else self.paid)
            return
        mine = self.due(total, export) if self.supplies else self.owed(total, export)
        self.control.reckon(mine + self.paid)

    def came_to_us(self, total: int, export: int) -> None:
        """So much flowed to us, and so much is secured."""
        theirs = self.owed(total, export) if self.supplies else self.due(total, export)
        self.control.get(theirs + self.received)

    def turns_at(self, at: Instant) -> bool:
        """Whether a price is in force at `at` that has not taken effect."""
        return self.bill.turns_at(at) or (self.feed is not None and self.feed.turns_at(at))

    def grows_dearer(self, at: Instant) -> bool:
        """Whether a price that takes effect at a reading of `at` makes either side owe more, or the other one."""
        return self.turns_at(at) and any(
            abs(ahead) > abs(bill.price.amount) or (ahead < 0) != (bill.price.amount < 0)
            for bill in (self.bill, self.feed)
            if bill is not None
            for ahead in bill.soon(at)
        )

    def check_clock(self, at: Instant, own: Instant, late: int) -> None:
        """Pass where a reading announced at `at`, by the supplier's clock, has the prices of `own`, our meter's clock.

        Two clocks may be `SOON` apart, and an announcement `late` ms on its way. More is nothing to us but where
        another price would follow from it.

        Raises:
            BadReading: it would bill at the price of another time.
        """
        if -SOON - late <= at - own <= SOON:
            return
        for bill in (self.bill, self.feed):
            if bill is None:
                continue
            turns = len(bill.soon(at))
            if turns > len(bill.soon(own + SOON)) or turns < len(bill.soon(own - SOON - late)):
                raise BadReading(
                    f"the supplier's clock is {abs(at - own) // 1_000} s off ours, and bills at another time's price",
                    "set this machine's clock, or look for another supplier",
                )

    def turn(self, total: Quantity, export: Quantity, at: Instant) -> bool:
        """Let the prices in force at an announced reading take effect. Returns whether one did.

        Raises:
            IllegalEvent: a total below the last turn's.
        """
        turned = self.bill.turn(total, at)
        if self.feed is not None:
            turned = self.feed.turn(export, at) or turned
        return turned

    # ---- how far it may go

    def reach(
        self, way: Way, total: Quantity, export: Quantity, at: Instant, feed_limit: int
    ) -> tuple[Quantity, Quantity]:
        """How far the two registers may run, the way the flow goes, having reached `total` and `export`.

        What flows from us is bounded by what came back and by our trust; what flows to us, by what we can still pay.
        A consumer hears of a new price only after it took effect: it lets no more flow than all prices allow that are
        in force by its own clock, `at`, or soon.
        """
        supply, back = total, export
        by = at + SOON if not self.supplies and self.feed is not None else -1
        if way is Way.SUPPLY:
            runs = [self._run(total, export, self._worth(way), total), Quantity(self._limit)]
            runs += [self._run(total, export, price, total, soon=True) for price in self.bill.soon(by)]
            supply = max(total, min(runs))
        elif way is Way.FEED and self.feed is not None:
            runs = [self._run(total, export, self._worth(way), export), Quantity(feed_limit)]
            runs += [self._run(total, export, -price, export, soon=True) for price in self.feed.soon(by)]
            back = max(export, min(runs))
        return supply, back

    def spent(self, way: Way, total: Quantity, export: Quantity) -> bool:
        """Whether we cannot pay for one more unit of what flows to us that way."""
        reached = total if way is Way.SUPPLY else export
        return self._takes(way) and self._run(total, export, self._worth(way), reached) <= reached

    def _run(self, total: int, export: int, worth: int, reached: int, *, soon: bool = False) -> Quantity:
        """How far a register may run from `reached`, where each `per` units make the consumer owe `worth` more.

        Below 0 it is the supplier who owes more. What only comes `soon` is bounded by trust, not by means.
        """
        if worth == 0:
            return MAX_QUANTITY
        due, owed = self._exact(total, export)
        per, consumer_owes = self._per, worth > 0
        mine, theirs = (due, owed) if self.supplies else (owed, due)
        if consumer_owes == self.supplies:  # it flows from us
            got = self.control.got
            if self._ahead:
                most = got - self.paid
            else:  # what we owe now we are about to pay, and cannot give a second time
                most = got + self.control.trust - max(self.paid, got - mine // per if self.payer is not None else 0)
            if self.payee is not None and not soon:
                most = min(most, self.payee.capacity + theirs // per - self.paid)
        elif soon:
            return MAX_QUANTITY
        else:
            most = (self.payer.capacity if self.payer is not None else 0) + mine // per - self.received
        if consumer_owes:
            most = min(most, self._budget + owed // per)
        room = (most + 1) * per - 1 - (due if consumer_owes else owed)
        return Quantity(reached + max(0, room) // abs(worth))

    def _exact(self, total: int, export: int) -> tuple[int, int]:
        """Both sums, not rounded (token units times `per`)."""
        rise, fall = self.bill.exact(total)
        if self.feed is None:
            return rise, fall
        back_rise, back_fall = self.feed.exact(export)
        return rise + back_fall, fall + back_rise

    def pay(self, way: Way, total: Quantity, export: Quantity) -> list[Evidence]:
        """Pay what the control unit lets go, in whole ticks; an empty list where nothing is new."""
        payer = self.payer
        if payer is None:
            return []
        upto = self.payable(way, total, export)
        return payer.pay(upto) if upto > payer.paid else []

    def payable(self, way: Way, total: Quantity, export: Quantity) -> int:
        """What may be paid by us in all, with readings at these totals."""
        payer, control = self.payer, self.control
        if payer is None:
            return 0
        if self.feed is None:
            most = min(control.may_give, self._budget, payer.capacity, self._most_due())
            return most if not self.supplies else 0
        if self._ahead and not self._takes(way):
            return payer.paid  # what was paid ahead to us is for what flows from us
        mine = self.due(total, export) if self.supplies else self.owed(total, export)
        trust = control.trust if self._ahead else 0
        most = min(control.got + trust - mine, payer.capacity)
        if not self.supplies:
            most = min(most, self._budget + self.received, max(self._most_due() - mine + self.received, payer.paid))
        return most

    def gives(self, way: Way) -> bool:
        """Whether what flows that way makes the other side owe us more."""
        return self._worth(way) > 0 if self.supplies else self._worth(way) < 0

    def _takes(self, way: Way) -> bool:
        """Whether what flows that way makes us owe more."""
        return self._worth(way) < 0 if self.supplies else self._worth(way) > 0

    def _worth(self, way: Way) -> int:
        """By how much each `per` units make the consumer owe more (token units)."""
        if way is Way.SUPPLY:
            return self.bill.price.amount if self.feed is not None else max(0, self.bill.price.amount)
        return -self.feed.price.amount if way is Way.FEED and self.feed is not None else 0

    def _most_due(self) -> int:
        """The most that the quantity limit can cost; in whole ticks where they are paid before they are used."""
        most = self.bill.due(self._limit)
        return -(-most // self._tick) * self._tick if self._ahead else most
