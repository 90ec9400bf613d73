"""Day-ahead markets: what their libraries make of answers in the published form becomes exact prices."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from aiohttp import web

from penstock.core.errors import BadRates, PricesUnreachable, UsageError
from penstock.core.units import Instant
from penstock.gateways.prices import source
from penstock.gateways.prices.market import TOKEN

from .prices import serving

pytest.importorskip("entsoe")
pytest.importorskip("nordpool")

NOW = datetime(2026, 3, 1, 10, 7, tzinfo=UTC)
MIDNIGHT = datetime(2026, 2, 28, 23, tzinfo=UTC)  # in Brussels


def clock() -> Instant:
    return Instant(int(NOW.timestamp()) * 1000)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "a-token")


def publication(points: list[tuple[int, str]], resolution: str = "PT15M") -> str:
    """A day in ENTSO-E's form (IEC 62325-451-3, article 12.1.D), curve type A03: what repeats is left out."""
    rows = "".join(
        f"<Point><position>{n}</position><price.amount>{price}</price.amount></Point>" for n, price in points
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Publication_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-3:publicationdocument:7:3">
 <type>A44</type>
 <TimeSeries><mRID>1</mRID><businessType>A62</businessType>
  <currency_Unit.name>EUR</currency_Unit.name><price_Measure_Unit.name>MWH</price_Measure_Unit.name>
  <curveType>A03</curveType>
  <Period>
   <timeInterval><start>2026-02-28T23:00Z</start><end>2026-03-01T23:00Z</end></timeInterval>
   <resolution>{resolution}</resolution>{rows}
  </Period>
 </TimeSeries>
</Publication_MarketDocument>"""


NOTHING = """<?xml version="1.0" encoding="UTF-8"?>
<Acknowledgement_MarketDocument><Reason><code>999</code>
<text>No matching data found for Data item Day-ahead Prices [12.1.D]</text></Reason></Acknowledgement_MarketDocument>"""


def xml(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": "text/xml"})


@pytest.mark.asyncio
async def test_entsoe_prices_become_exact_prices_a_kwh(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [(1, "85.31"), (41, "-12.07"), (43, "0.1"), (50, "-500"), (96, "4000")]
    async with serving(
        lambda request: xml(publication(points) if request.query["offset"] == "0" else NOTHING)
    ) as server:
        monkeypatch.setattr("entsoe.entsoe.URL", server.url + "/api")
        rates = await source("entsoe:BE", clock).rates()
    assert server.asked[0].query["in_Domain"] == "10YBE----------2"
    at = [Instant(int((MIDNIGHT + timedelta(minutes=15 * n)).timestamp()) * 1000) for n in range(97)]
    assert (rates.start, rates.end) == (at[40], at[96])
    assert rates.price(at[41]) == Decimal("-0.01207")
    assert [rates.price(at[n]) for n in (42, 48, 49, 95)] == [Decimal(v) for v in ("0.0001", "0.0001", "-0.5", "4")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (xml(NOTHING), "NoMatchingDataError"),
        (web.Response(status=401, text="<text>bad token</text>"), "answers 401"),
        (xml("<html>"), "gives no prices"),
        (xml(publication([(1, "dear")])), "gives no prices"),
    ],
)
@pytest.mark.asyncio
async def test_an_answer_that_the_library_cannot_use_is_a_typed_error_without_our_token(
    monkeypatch: pytest.MonkeyPatch, answer: web.Response, said: str
) -> None:
    def again(request: web.Request) -> web.Response:
        return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": "text/xml"})

    async with serving(again) as server:
        monkeypatch.setattr("entsoe.entsoe.URL", server.url + "/api")
        with pytest.raises((PricesUnreachable, BadRates), match=said) as caught:
            await source("entsoe:DE_LU", clock).rates()
    assert "a-token" not in caught.value.line()


def indices(request: web.Request) -> web.Response:
    """Nord Pool's DayAheadPriceIndices: today's, and none yet for tomorrow."""
    day = date.fromisoformat(request.query["date"])
    if day != date(2026, 3, 1):
        return web.Response(status=204)
    at = [MIDNIGHT + timedelta(minutes=15 * n) for n in range(97)]
    entries = [
        {
            "deliveryStart": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "deliveryEnd": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "entryPerArea": {"NO1": round(60.5 - n, 2)},
        }
        for n, (begin, end) in enumerate(pairwise(at))
    ]
    return web.json_response(
        {
            "deliveryDateCET": "2026-03-01",
            "updatedAt": "2026-02-28T11:57:12.1234567Z",
            "market": "DayAhead",
            "resolutionInMinutes": 15,
            "currency": "EUR",
            "indexNames": ["NO1"],
            "multiIndexEntries": entries,
        }
    )


@pytest.mark.asyncio
async def test_nord_pool_prices_become_exact_prices_a_kwh(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(indices) as server:
        monkeypatch.setattr("nordpool.elspot.Prices.API_URL", server.url + "/api")
        rates = await source("nordpool:NO1", clock).rates()
    assert [request.query["date"] for request in server.asked] == ["2026-03-01", "2026-03-02"]
    assert len(rates.slots) == 96
    assert rates.price(rates.start) == Decimal("0.0605")
    assert rates.slots[-1].value < 0


@pytest.mark.asyncio
async def test_nord_pool_without_prices_for_now_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(lambda request: web.Response(status=204)) as server:
        monkeypatch.setattr("nordpool.elspot.Prices.API_URL", server.url + "/api")
        with pytest.raises((PricesUnreachable, BadRates)):
            await source("nordpool:GER", clock).rates()


@pytest.mark.parametrize("name", ["entsoe:ATLANTIS", "nordpool:ATLANTIS", "entsoe:", "nordpool:"])
def test_an_area_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        source(name, clock)


def test_what_a_market_needs_is_said_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN)
    with pytest.raises(UsageError, match=TOKEN):
        source("entsoe:BE", clock)
    for extra, module in (("entsoe", "entsoe"), ("nordpool", "nordpool.elspot")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError) as caught:
            source(f"{extra}:BE", clock)
        assert f"penstock[{extra}]" in caught.value.advice
