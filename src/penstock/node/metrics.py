"""A node's figures for Prometheus, read from the live objects when they are asked for: no tick pays for them.

    what is sold     sessions running and ended, ticks, token units secured, exposure (in all, and the worst)
    who comes        links open and pending, refusals by kind of error
    what it rests on journal commits (seconds, writes that share one), room on its disk, when the ledger was seen
    what happened    every event of the log, by name and level

Labels are of our own making: a peer can raise a count and never add one. All of them are there from the start, at 0, so
that an alert sees the first time as a rise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.core.errors import PenstockError
from penstock.core.messages import Reason
from penstock.core.units import Instant
from penstock.node.site import Site
from penstock.node.tell import LEVELS, OTHER, level_of
from penstock.node.watch import Watch


class Links(Protocol):
    """A server's links."""

    @property
    def links(self) -> int:
        """Open ones."""
        ...

    @property
    def pending(self) -> int:
        """Those that have not proven their key yet."""
        ...


class Spread(Protocol):
    """Values by size: how many were at most each of `bounds`, and above the one before."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float


class Commits(Protocol):
    """A journal's commits."""

    @property
    def seconds(self) -> Spread:
        """How long each took."""
        ...

    @property
    def writes(self) -> Spread:
        """How many writes shared it."""
        ...


def registry(*collectors: Collector) -> CollectorRegistry:
    """A node's own registry: these, and the process's CPU, memory and descriptors."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    for collector in collectors:
        made.register(collector)
    return made


class SiteMetrics(Collector):
    """What a supplier's site sells and rests on. `journal` is the journal's file."""

    def __init__(self, site: Site, links: Links, commits: Commits, journal: Path) -> None:
        self._site, self._links, self._commits, self._journal = site, links, commits, journal

    def collect(self) -> Iterator[Metric]:
        """All figures as of now."""
        yield from self._selling()
        yield from self._coming()
        yield from self._resting()

    def _selling(self) -> Iterator[Metric]:
        tally = self._site.tally
        sold, exposure = tally.sold, tally.exposure
        yield _gauge("sessions_running", "Sessions that stream or are being squared.", tally.running)
        ended = {str(reason): tally.ended[reason] for reason in Reason}
        yield _by("sessions", "Sessions that have ended, by reason.", "reason", ended)
        yield _counter("ticks", "Ticks proven and made durable.", sold.ticks)
        yield _counter("secured_token_units", "Token units that ticks and vouchers have secured to us.", sold.paid)
        yield _gauge("exposure_token_units", "What all consumers together could still leave unpaid.", exposure.total)
        yield _gauge("exposure_worst_token_units", "The most that one consumer could leave unpaid.", exposure.worst)

    def _coming(self) -> Iterator[Metric]:
        links = GaugeMetricFamily("penstock_links", "Links, open and still to prove their key.", labels=["state"])
        links.add_metric(["open"], self._links.links)
        links.add_metric(["pending"], self._links.pending)
        yield links
        refused = {kind: self._site.tally.refused[kind] for kind in sorted(_kinds(PenstockError))}
        yield _by("refusals", "Peers refused or cut off, by kind of error.", "reason", refused)

    def _resting(self) -> Iterator[Metric]:
        yield _histogram("journal_commit_seconds", "How long a commit of the journal took.", self._commits.seconds)
        yield _histogram("journal_commit_writes", "How many writes shared a commit.", self._commits.writes)
        yield _gauge("journal_free_bytes", "Room on the journal's disk.", room(self._journal))
        site = self._site
        yield _gauge("closes_unsettled", "Channels signed off and not settled yet.", site.unsettled)
        yield _gauge("channels_watched", "Channels that are looked at on the ledger.", site.watching)
        yield _age(site.seen, site.clock)


class WatchMetrics(Collector):
    """What a watcher watches."""

    def __init__(self, watch: Watch, clock: Callable[[], Instant]) -> None:
        self._watch, self._clock = watch, clock

    def collect(self) -> Iterator[Metric]:
        """All figures as of now."""
        watch = self._watch
        yield _gauge("channels_watched", "Channels that are still to be settled.", watch.left)
        yield _counter("channels_settled", "Channels that were settled for good.", watch.settled)
        yield _counter("lost_token_units", "Token units lost because no answer came in time.", watch.lost)
        if watch.seen is not None:
            yield _age(watch.seen, self._clock)


class EventMetrics(Collector):
    """How often each event was told."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All events, those that have not happened yet, too."""
        family = CounterMetricFamily("penstock_events", "Events told in the log.", labels=["event", "level"])
        for event in (*LEVELS, OTHER):
            family.add_metric([event, level_of(event)], self._counts.get(event, 0))
        yield family


def room(path: Path) -> int:
    """Bytes that are free on the disk of `path`, for whom we run as."""
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"penstock_{name}", about, value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"penstock_{name}", about, value)


def _by(name: str, about: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"penstock_{name}", about, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, about: str, spread: Spread) -> Metric:
    family = HistogramMetricFamily(f"penstock_{name}", about)
    below, buckets = 0, []
    for bound, count in zip((*map(str, spread.bounds), "+Inf"), list(spread.counts), strict=True):
        below += count
        buckets.append((bound, below))
    family.add_metric([], buckets, spread.total)
    return family


def _age(seen: Instant, clock: Callable[[], Instant]) -> Metric:
    return _gauge("ledger_seen_age_seconds", "How long ago the ledger answered last.", max(0, clock() - seen) / 1000)


def _kinds(error: type[PenstockError]) -> Iterable[str]:
    yield error.__name__
    for below in error.__subclasses__():
        yield from _kinds(below)
