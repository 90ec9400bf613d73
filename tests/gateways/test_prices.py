"""Sources of prices: asked politely, believed as far as they can be checked, and the last good series kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from penstock.core import published, series
from penstock.core.errors import BadRates, PricesUnreachable, UsageError
from penstock.core.identity import Key
from penstock.core.series import Rates
from penstock.core.units import Instant
from penstock.gateways.prices import FileSource, HttpSource, Newest, Vouched, http, newest, source

from .prices import serving

BEGIN, QUARTER = 1_772_323_200_000, 900_000  # 2026-03-01T00:00:00Z, and ms


def rates(*values: str) -> Rates:
    at = [Instant(BEGIN + n * QUARTER) for n in range(len(values) + 1)]
    return Rates.of(zip(at[:-1], at[1:], map(Decimal, values), strict=True))


DAY, NEXT = rates("0.40", "-0.05"), rates("0.30", "0.20")
KEY = Key(b"\x21" * 32)


def clock() -> Instant:
    return Instant(BEGIN)


def json_of(prices: Rates, **headers: str) -> web.Response:
    return web.Response(body=series.dump(prices), headers={"Content-Type": "application/json", **headers})


# ---- a file


@pytest.mark.asyncio
async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(series.dump(DAY))
    file = FileSource(path)
    assert await file.rates() is await file.rates()
    new = tmp_path / "new"
    new.write_bytes(series.dump(NEXT))
    new.replace(path)
    assert await file.rates() == NEXT


@pytest.mark.asyncio
async def test_a_file_that_is_none_or_half_is_refused_by_name(tmp_path: Path) -> None:
    file = FileSource(tmp_path / "prices.json")
    with pytest.raises(PricesUnreachable, match=r"prices\.json: No such file"):
        await file.rates()
    (tmp_path / "prices.json").write_bytes(series.dump(DAY)[:-4])
    with pytest.raises(BadRates, match=r"prices\.json: the prices are no JSON"):
        await file.rates()
    with pytest.raises(PricesUnreachable, match="cannot read"):
        await FileSource(tmp_path).rates()
    with pytest.raises(PricesUnreachable, match="cannot read"):
        await FileSource(Path("a\0b")).rates()


# ---- an endpoint


@pytest.mark.asyncio
async def test_what_has_not_changed_is_not_sent_again() -> None:
    def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"7"':
            return web.Response(status=304, headers={"Cache-Control": "max-age=40"})
        return json_of(DAY, ETag='"7"', **{"Cache-Control": "public, max-age=600", "Age": "100"})

    async with serving(answer) as server:
        http_ = HttpSource(server.url + "/prices?token=secret")
        try:
            assert await http_.rates() == DAY
            assert http_.again == 500
            assert await http_.rates() == DAY
            assert http_.again == 40
            assert "secret" not in http_.name
            assert server.asked[0].query_string == "token=secret"
        finally:
            await http_.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, http.USUAL),
        ({"Cache-Control": "no-store, max-age=5"}, http.USUAL),
        ({"Cache-Control": "max-age=0"}, http.SOONEST),
        ({"Cache-Control": "s-maxage=9, max-age=99999999"}, http.LATEST),
        ({"Cache-Control": 'max-age="120"'}, 120),
        ({"Cache-Control": "max-age=soon"}, http.USUAL),
    ],
)
@pytest.mark.asyncio
async def test_an_answer_is_good_for_as_long_as_it_says_within_bounds(headers: dict[str, str], seconds: float) -> None:
    async with serving(lambda request: json_of(DAY, **headers)) as server:
        http_ = HttpSource(server.url)
        await http_.rates()
        assert http_.again == seconds
        await http_.close()


def _redirect(to: str) -> Callable[[web.Request], web.Response]:
    return lambda request: web.Response(status=302, headers={"Location": to})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda request: web.Response(status=500), "answers 500"),
        (lambda request: web.Response(status=304), "answers 304"),
        (lambda request: web.Response(status=204), "answers 204"),
        (lambda request: web.Response(body=b"<html>"), "no JSON"),
        (lambda request: web.Response(body=b" " * (series.MAX_SERIES + 1)), "answers with more than"),
        (lambda request: json_of(DAY, **{"Content-Encoding": "gzip"}), "'gzip', unasked"),
        (_redirect("/again"), "more than 3 times"),
        (_redirect("http://192.0.2.7/prices"), "where we do not ask"),
        (_redirect("file:///etc/passwd"), "where we do not ask"),
        (_redirect("http://[::1"), "no prices from"),
    ],
)
@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_used_is_a_typed_error_and_the_old_one_stays(answer: Any, said: str) -> None:
    async with serving(lambda request: json_of(DAY)) as server:
        http_ = HttpSource(server.url)
        kept = Newest(http_, lambda rates: None, clock, lambda event, **facts: None)
        await kept.first()
        server.answer = answer
        with pytest.raises((BadRates, PricesUnreachable), match=said) as caught:
            await http_.rates()
        assert "\n" not in caught.value.line()
        assert kept.rates == DAY
        server.answer = lambda request: json_of(NEXT)
        assert await http_.rates() == NEXT
        await http_.close()


@pytest.mark.asyncio
async def test_a_redirection_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: web.Request) -> web.Response:
        return json_of(DAY) if request.path == "/there" else _redirect("there")(request)

    async with serving(answer) as server:
        http_ = HttpSource(server.url + "/here")
        assert await http_.rates() == DAY
        await http_.close()


@pytest.mark.asyncio
async def test_a_server_that_is_silent_or_away_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER", 0.2)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http_ = HttpSource(f"http://127.0.0.1:{port}")
    with pytest.raises(PricesUnreachable, match=r"within 0\.2 s"):
        await http_.rates()
    server.close()
    with pytest.raises(PricesUnreachable, match="no prices from"):
        await http_.rates()
    await http_.close()


@pytest.mark.parametrize(
    "url", ["http://192.0.2.7/", "https://user:word@example.org/", "https://", "http://example.org", "https://a:b/"]
)
def test_a_url_that_others_could_write_to_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        source(url, clock)


@pytest.mark.parametrize("name", ["ftp://example.org/x", "s3://x/y"])
def test_what_is_no_source_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="prices cannot be had from"):
        source(name, clock)


# ---- signed


def test_signed_prices_may_come_in_the_clear() -> None:
    source("http://192.0.2.7/", clock, Vouched(KEY.address, "supply"))


@pytest.mark.asyncio
async def test_prices_must_be_signed_and_no_older_than_those_before(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    file = FileSource(path, Vouched(KEY.address, "supply"))
    path.write_bytes(series.dump(DAY))
    with pytest.raises(BadRates, match="nobody signed"):
        await file.rates()
    path.write_bytes(published.dump(published.sign(KEY, NEXT, "supply", Instant(2_000))))
    assert await file.rates() == NEXT
    path.write_bytes(published.dump(published.sign(KEY, DAY, "supply", Instant(1_000))))
    os.utime(path, ns=(1, 1))
    with pytest.raises(BadRates, match="issued before"):
        await file.rates()


# ---- following


@pytest.mark.asyncio
async def test_a_source_that_fails_is_asked_again_and_its_last_prices_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "FIRST", 0.01)
    path = tmp_path / "prices.json"
    path.write_bytes(series.dump(DAY))
    file = FileSource(path)
    file.again = 0.01
    seen: list[Rates] = []
    told: list[tuple[str, dict[str, Any]]] = []
    kept = Newest(file, seen.append, clock, lambda event, **facts: told.append((event, facts)))
    await kept.first()
    running = asyncio.ensure_future(kept.run())

    async def until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():  # noqa: ASYNC110  # what a file's source does is seen from outside alone
                await asyncio.sleep(0.005)

    path.unlink()
    await until(lambda: kept.stale)
    assert kept.rates == DAY
    assert kept.seen == clock()
    assert told[0][0] == "prices failed"
    assert told[0][1]["age"] == 0
    (tmp_path / "new").write_bytes(series.dump(NEXT))
    (tmp_path / "new").replace(path)
    await until(lambda: not kept.stale)
    assert seen == [DAY, NEXT]
    assert [event for event, _ in told] == ["prices failed", "prices are back"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
