"""What the supplier says of its meter, beside what the consumer's own counts: this bounds what that one bills."""

from __future__ import annotations

from penstock.core.account import Account
from penstock.core.errors import BadReading, BadTerms
from penstock.core.messages import Resumed
from penstock.core.meter import SessionMeter, Tolerance
from penstock.core.tariff import Bill
from penstock.core.units import Instant, Quantity

READINGS = 8  # among which one comes while nothing flows: each package waits for its payment


class Announced:
    """The newest totals that a consumer heard of; import and export since the session began."""

    __slots__ = ("_meter", "_seen", "_tolerance", "apart", "export", "total")

    def __init__(self, meter: SessionMeter, tolerance: Tolerance, account: Account) -> None:
        """`meter` is our own, `account` has the turns that the journal knows of."""
        self._meter, self._tolerance = meter, tolerance
        self.total, self.export = _last(account.bill.turns), _last(account.feed_turns)
        self.apart = (0, 0)  # how far our own meter is ahead, within the tolerance
        self._seen: tuple[tuple[int, int], ...] = ((0, 0),)  # that, at the last readings

    def least(self, account: Account) -> tuple[Quantity, Quantity]:
        """Below what no honest totals can be: what was announced, and what the bills have turned at."""
        return max(self.total, _last(account.bill.turns)), max(self.export, _last(account.feed_turns))

    def check(self, total: int, export: int, account: Account) -> None:
        """Pass where an announced reading may follow the last.

        Raises:
            BadReading: it went back, or counts what could not flow.
        """
        least, least_back = self.least(account)
        if total < least or export < least_back:
            raise BadReading(f"the supplier's meter went back from {least} and {least_back} to {total} and {export}")
        if export and account.feed is None:
            raise BadReading("the supplier's meter counts what was fed in, and nothing could be")

    def take(self, total: Quantity, export: Quantity) -> bool:
        """Take a reading. Returns whether anything flowed since the last."""
        moved = total > self.total or export > self.export
        self.total, self.export = max(total, self.total), max(export, self.export)
        return moved

    def exceeds(self, total: int, export: int) -> bool:
        """Whether a reading says more than our own meter does, which we read after it was made."""
        meter, tolerance = self._meter, self._tolerance
        return total > meter.total + tolerance.at(meter.total) or export > meter.export + tolerance.at(meter.export)

    def differs(self, total: int, export: int) -> bool:
        """Whether a last reading is not what our own meter counted."""
        meter, tolerance = self._meter, self._tolerance
        return any(
            abs(theirs - own) > tolerance.at(max(theirs, own))
            for theirs, own in ((total, meter.total), (export, meter.export))
        )

    def within(self, total: int, export: int) -> tuple[int, int]:
        """So much of a reading as our own meter confirms."""
        meter, tolerance = self._meter, self._tolerance
        most, most_back = meter.total + tolerance.at(meter.total), meter.export + tolerance.at(meter.export)
        return min(total, most), min(export, most_back)

    def set_by(self, total: int, export: int) -> None:
        """Set our own meter by a reading, as far as the tolerance goes.

        What flowed while the reading was on its way is no deviation of our meter, and counts as let go: the least that
        it was ahead at the last readings is.
        """
        meter, tolerance = self._meter, self._tolerance
        self._seen = (*self._seen[1 - READINGS :], (meter.total - total, meter.export - export))
        apart, apart_back = (min(ahead) for ahead in zip(*self._seen, strict=True))
        most, most_back = tolerance.at(meter.total), tolerance.at(meter.export)
        self.apart = max(-most, min(most, apart)), max(-most_back, min(most_back, apart_back))

    @property
    def stand(self) -> tuple[Quantity, Quantity]:
        """Where the supplier's meter must stand by now, by our own."""
        (apart, apart_back), meter = self.apart, self._meter
        return max(self.total, Quantity(meter.total - apart)), max(self.export, Quantity(meter.export - apart_back))

    def caught_up(self, account: Account, resumed: Resumed) -> tuple[Bill, Bill | None]:
        """Our bills with the turns that the supplier made while we were apart.

        Raises:
            BadTerms: turns before what we heard, after where it stands, or before their steps' time.
        """
        bill = _caught_up(account.bill, resumed.turns, self.total, resumed.total, resumed.at)
        if account.feed is not None:
            return bill, _caught_up(account.feed, resumed.feed_turns, self.export, resumed.export, resumed.at)
        if resumed.feed_turns or resumed.export:
            raise BadTerms("the supplier bills what was fed in, and nothing could be")
        return bill, None


def _last(turns: tuple[Quantity, ...]) -> Quantity:
    return turns[-1] if turns else Quantity(0)


def _caught_up(bill: Bill, turns: tuple[Quantity, ...], heard: int, total: int, at: Instant) -> Bill:
    ahead = turns[len(bill.turns) :]
    if turns[: len(bill.turns)] != bill.turns or any(not heard <= turn <= total for turn in ahead):
        raise BadTerms("the supplier turned its bill at other totals than those that it announced")
    caught_up = Bill(bill.tariff, turns)
    if ahead and bill.tariff.steps[len(turns)].start > at:
        raise BadTerms("the supplier turned its bill before the time of the step")
    return caught_up
