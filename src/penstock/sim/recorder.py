"""Samples of a session that turns round, from what its two processes tell while it runs."""

from __future__ import annotations

import msgspec

from penstock.core.units import Instant
from penstock.sim.processes import Event
from penstock.sim.samples import About, Sample, SampleLog

HOUR = 3_600_000  # ms


class Recorder:
    """Hears the events of a supplier and a consumer, and writes a sample for each `progress` of the consumer.

    The first sample is at `since`: a simulated line's clock begins when it is made, the real stay began earlier.
    """

    def __init__(self, log: SampleLog, since: Instant) -> None:
        self._log, self._since = log, since
        self._first: int | None = None
        self._supplier: Event = {}
        self._worst = {"supplier": 0, "consumer": 0}
        self._why = ""
        self._newest: Sample | None = None

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
            prices = facts["price"], facts["feed_price"]
            self._write(Sample(self._since, 0, *prices, 0, 0, 0, 0, 0, 0, 0, 0))
        at = Instant(self._since + max(0, facts["at"] - self._first))
        sample = Sample(
            at=max(at, self._newest.at) if self._newest is not None else at,
            power=self._power(at, facts),
            price=facts["price"],
            feed_price=facts["feed_price"],
            ticks=facts["ticks"],
            back_ticks=facts["back_ticks"],
            paid=facts["paid"],
            paid_back=facts["repaid"],
            exposure_supplier=self._stake("supplier", self._supplier),
            exposure_consumer=self._stake("consumer", facts),
            total=facts["total"],
            export=facts["export"],
            why=self._why,
        )
        self._why = ""
        return self._write(sample)

    def end(self, total: int, export: int, paid: int, repaid: int, ticks: int) -> None:
        """The session has ended, with these totals and sums (`Sample`)."""
        last = self._newest
        if last is None:
            return
        left = abs(total - last.total) + abs(export - last.export)
        at = last.at + (left * HOUR // abs(last.power) if last.power else 0)
        changed = msgspec.structs.replace(
            last, at=at, power=0, total=total, export=export, paid=paid, paid_back=repaid, ticks=ticks, why="the end",
            exposure_supplier=0, exposure_consumer=0,
        )  # fmt: skip
        self._write(changed)

    def _power(self, at: Instant, facts: Event) -> int:
        """What flowed since the last sample, on average (W): valves throttle faster than samples are taken."""
        last = self._newest
        if last is None or at <= last.at:
            return last.power if last is not None else int(facts["power"])
        moved = (facts["total"] - last.total) - (facts["export"] - last.export)
        return int(moved * HOUR / (at - last.at))

    def _stake(self, who: str, facts: Event) -> int:
        """The most that a side had at stake since the last sample, as far as it tells."""
        worst, before = facts.get("max_exposure", 0), self._worst[who]
        self._worst[who] = max(worst, before)
        return int(worst if worst > before else max(0, facts.get("exposure", 0)))

    def _write(self, sample: Sample) -> Sample:
        self._log.append(sample)
        self._newest = sample
        return sample


def about(title: str, limit_supplier: int, limit_consumer: int) -> About:
    """What a demo's samples are of: its token is the devnet's."""
    return About(title, "cEUR", 6, limit_supplier, limit_consumer)
