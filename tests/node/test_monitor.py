"""A pole's page for machines, asked over HTTP while real cars buy: figures from live sessions, and health."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from penstock.core.errors import JournalError, UsageError
from penstock.core.messages import Reason
from penstock.core.units import Instant
from penstock.node import monitor as page
from penstock.node.metrics import EventMetrics, SiteMetrics, registry
from penstock.node.monitor import Monitor, site_check
from penstock.node.tell import LEVELS, Counted

from .world import SPEED, Street, until

PAID = "penstock_secured_token_units_total"


@asynccontextmanager
async def shown(it: Street, events: Counted | None = None) -> AsyncIterator[Page]:
    """The street's pole with its page."""
    journal = it.directory / "pole.db"
    collectors = [SiteMetrics(it.site, it.server, it.journal.commits, journal)]
    monitor = Monitor(
        registry(*collectors, EventMetrics((events or Counted(it.told)).counts)), site_check(it.site, journal)
    )
    await monitor.listen("127.0.0.1", 0)
    async with ClientSession(f"http://127.0.0.1:{monitor.port}") as session:
        try:
            yield Page(session)
        finally:
            await monitor.close()


class Page:
    """What the page answers."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def metrics(self) -> dict[str, float]:
        async with self._session.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain")
            lines = (await answer.text()).splitlines()
        found = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in found}

    async def health(self) -> tuple[int, dict[str, Any]]:
        async with self._session.get("/health") as answer:
            return answer.status, await answer.json()


@pytest.mark.asyncio
async def test_figures_are_those_of_the_sessions_that_run_and_have_run(open_street: Any) -> None:
    async with open_street(speed=SPEED) as it, shown(it) as found, it.car() as car:
        first = await found.metrics()
        assert first["penstock_sessions_running"] == 0
        assert first['penstock_sessions_total{reason="target reached"}'] == 1, "the street's own first car"
        buying = asyncio.ensure_future(car.buy())
        await until(lambda: it.supplier.shell and it.supplier.shell.session.ticks > 20)
        during = await found.metrics()
        session = it.supplier.shell.session
        assert during["penstock_sessions_running"] == 1
        assert during['penstock_links{state="open"}'] == 1
        assert during["penstock_ticks_total"] - first["penstock_ticks_total"] >= 20
        assert 20_000 <= during[PAID] - first[PAID] <= session.paid
        assert 0 <= during["penstock_exposure_worst_token_units"] == during["penstock_exposure_token_units"]
        assert during["penstock_exposure_token_units"] <= session.terms.offer.credit_limit
        commits = during["penstock_journal_commit_seconds_count"]
        assert during['penstock_journal_commit_seconds_bucket{le="+Inf"}'] == commits > 20
        assert during["penstock_journal_commit_writes_sum"] >= commits
        assert during["penstock_journal_free_bytes"] > 0
        car.consumer.stop()
        bought = await buying
        await until(lambda: it.supplier.shell is None)
        after = await found.metrics()
        assert after["penstock_sessions_running"] == after["penstock_exposure_token_units"] == 0
        assert after[f'penstock_sessions_total{{reason="{Reason.OPERATOR}"}}'] == 1
        assert after[PAID] - first[PAID] == bought.paid


@pytest.mark.asyncio
async def test_a_session_that_is_taken_up_counts_from_there(open_street: Any) -> None:
    async with open_street(speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=2_000))
        await until(lambda: it.supplier.shell and it.supplier.shell.session.ticks > 20)
        await it.crash()
        await it.open(speed=SPEED)
        car.port = it.server.port
        before = it.supplier.shell.session.paid
        async with shown(it) as found:
            assert (await found.metrics())[PAID] == 0
            bought = await buying
            await until(lambda: it.supplier.shell is None)
            assert (await found.metrics())[PAID] == bought.paid - before


@pytest.mark.asyncio
async def test_a_peer_adds_to_counts_and_never_to_labels(open_street: Any) -> None:
    async with open_street() as it:
        told = it.site.tell = Counted(it.told)
        async with shown(it, told) as found:
            first = await found.metrics()
            for number in range(30):
                thief = await it.thief(it.fresh_key())
                thief.send(b'[99,"%d"]' % number if number % 2 else b"rubbish %d" % number)
                await asyncio.wait_for(thief.ended, 10)
            after = await found.metrics()
            assert after.keys() == first.keys()
            assert after['penstock_refusals_total{reason="BadMessage"}'] == 30
            assert 1 <= after['penstock_events_total{event="cut off",level="warning"}'] < 30, "not a line for each"
            assert {"session", "peer", "reason", "error"} > it.told.of("cut off")[0].keys()


@pytest.mark.asyncio
async def test_every_event_and_reason_is_there_before_it_happens(open_street: Any) -> None:
    async with open_street() as it, shown(it) as found:
        names = "\n".join(await found.metrics())
        assert set(re.findall(r'penstock_events_total{event="([^"]+)"', names)) == {*LEVELS, "other"}
        assert set(re.findall(r'penstock_sessions_total{reason="([^"]+)"', names)) == {str(one) for one in Reason}


@pytest.mark.asyncio
async def test_the_document_names_the_figures_that_there_are(open_street: Any) -> None:
    document = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    named = set(re.findall(r"\b(?:penstock|process)_[a-z_]+[a-z]\b", document))
    watcher = {"penstock_channels_settled_total", "penstock_lost_token_units_total"}
    async with open_street() as it, shown(it) as found:
        there = {name.partition("{")[0] for name in await found.metrics()}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in there}
    assert named - watcher <= there | families
    ours = {name for name in families if name.startswith("penstock_")}
    assert not ours - named - {name + "_bucket" for name in named}


@pytest.mark.asyncio
async def test_health_says_what_is_wrong(open_street: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_street(serves=False) as it, shown(it) as found:
        assert await found.health() == (200, {"ok": True, "problems": []})
        it.skew = 200_000  # ms: the ledger was not seen for so long
        status, said = await found.health()
        assert (status, said["ok"]) == (503, False)
        assert re.fullmatch(r"ledger: not seen for 20\d s", said["problems"][0])
        await it.lookout.look()
        assert (await found.health())[0] == 200
        monkeypatch.setattr(page, "ROOM", 2**62)
        assert "bytes are free on its disk" in (await found.health())[1]["problems"][0]
        monkeypatch.undo()
        await it.journal.close()
        assert (await found.health())[1]["problems"][0].startswith("journal: ")
        it.site.fail(JournalError("journal x cannot be written (disk I/O error)", "repair the disk"))
        assert (await found.health())[1]["problems"] == [
            "journal: journal x cannot be written (disk I/O error): repair the disk"
        ]


@pytest.mark.asyncio
async def test_a_ledger_is_seen_even_where_no_channel_is_watched(open_street: Any) -> None:
    async with open_street() as it:
        for channel in list(it.lookout._channels):
            it.lookout.forget(channel)
        it.lookout.seen = Instant(0)
        await it.lookout.look()
        assert it.site.clock() - it.lookout.seen < 10_000


@pytest.mark.asyncio
async def test_an_address_in_use_is_an_error_of_one_line(open_street: Any, tmp_path: Path) -> None:
    async with open_street() as it:
        monitor = Monitor(registry(), site_check(it.site, tmp_path / "pole.db"))
        with pytest.raises(UsageError, match=r"cannot show metrics at 127\.0\.0\.1:\d+ \(address already in use\)"):
            await monitor.listen("127.0.0.1", it.server.port)
