"""Samples of a session that turns round, from what its two processes tell while it runs."""

from __future__ import annotations

from penstock.core.units import Instant
from penstock.sim.processes import Event
from penstock.sim.samples import About, Sample, SampleLog


class Recorder:
    """Hears the events of a supplier and a consumer, and writes a sample for each `progress` of the consumer.

    The first sample is at `since`: a simulated line's clock begins when it is made, the real stay began earlier.
    """

    def __init__(self, log: SampleLog, since: Instant) -> None:
        self._log, self._since = log, since
        self._first: int | None = None
        self._last = since
        self._supplier: Event = {}
        self._why = ""
        self.newest: Sample | None = None

    def take(self, who: str, event: str, facts: Event) -> Sample | None:
        """One event. Returns the sample that it makes, if it does."""
        if event == "way":
            self._why = str(facts["why"])
        if event != "progress" or "export" not in facts:
            return None
        if who == "supplier":
            self._supplier = facts
            return None
        if self._first is None:
            self._first = facts["at"]
        self._last = Instant(max(self._last, self._since + facts["at"] - self._first))
        sample = Sample(
            at=self._last,
            power=facts["power"],
            price=facts["price"],
            feed_price=facts["feed_price"],
            ticks=facts["ticks"],
            back_ticks=facts["back_ticks"],
            paid=facts["paid"],
            paid_back=facts["repaid"],
            exposure_supplier=max(0, self._supplier.get("exposure", 0)),
            exposure_consumer=max(0, facts["exposure"]),
            total=facts["total"],
            export=facts["export"],
            why=self._why,
        )
        self._why = ""
        self._log.append(sample)
        self.newest = sample
        return sample


def about(title: str, limit_supplier: int, limit_consumer: int) -> About:
    """What a demo's samples are of: its token is the devnet's."""
    return About(title, "cEUR", 6, limit_supplier, limit_consumer)
