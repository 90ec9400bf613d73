"""Day-ahead prices of the European markets, by libraries that know how to ask them. Neither is needed otherwise.

`entsoe-py` (MIT, extra `entsoe`) asks the transparency platform of ENTSO-E, with a security token of one's own in
ENTSOE_API_KEY; `nordpool` (MIT, extra `nordpool`) asks the exchange's data portal. Both give money per MWh as floats,
whose shortest decimal form is the number that was published: it has two digits behind the point. What a market says is
the bare price; fees and taxes are the business of whoever makes a tariff of it.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

from penstock.core.errors import BadRates, PriceError, PricesUnreachable, UsageError
from penstock.core.series import Rates
from penstock.core.units import Instant

ANSWER = 30.0  # seconds for each question
ALL = 120.0  # seconds for all that a library asks
AGAIN = 1_800.0  # seconds: tomorrow's prices come once a day, about 13:00 in Brussels
TOKEN = "ENTSOE_API_KEY"  # noqa: S105  # the variable's name: that of the library itself
_HOUR = 3_600_000  # ms
_DAY = timedelta(days=1)

Slot = tuple[Instant, Instant, Decimal]


class Market(ABC):
    """A market's prices of today and, once they are out, of tomorrow. Its library blocks, and so has a thread."""

    def __init__(self, name: str, clock: Callable[[], Instant]) -> None:
        self.name = name
        self.again = AGAIN
        self._clock = clock
        self._asking: asyncio.Future[list[Slot]] | None = None

    async def rates(self) -> Rates:
        """The prices from now on.

        Raises:
            PricesUnreachable: no answer, or none that the library can read. BadRates: it has gaps or odd values.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._asked))
        try:
            async with asyncio.timeout(ALL):
                return Rates.of(await asyncio.shield(self._asking))
        except TimeoutError:
            raise PricesUnreachable(f"no prices from {self.name} within {ALL:g} s") from None
        except BadRates as error:
            raise BadRates(f"{self.name}: {error}", error.advice) from None

    async def close(self) -> None:
        """What a thread still asks is not waited for."""
        if self._asking is not None:
            self._asking.cancel()

    def _asked(self) -> list[Slot]:
        try:
            return self._slots(datetime.fromtimestamp(self._clock() / 1000, UTC))
        except PriceError:
            raise
        except Exception as error:  # whatever a library raises; its words may have our token in them
            status = getattr(getattr(error, "response", None), "status_code", None)
            why = f"answers {status}" if status else f"gives no prices ({type(error).__name__})"
            raise PricesUnreachable(f"{self.name} {why}", "check the area, and that it may be reached") from None

    @abstractmethod
    def _slots(self, now: datetime) -> list[Slot]:
        """Ask, in a thread."""


class EntsoeSource(Market):
    """Day-ahead prices of a bidding zone from ENTSO-E, such as DE_LU."""

    def __init__(self, area: str, clock: Callable[[], Instant]) -> None:
        """Raises:
        UsageError: the library or its token is missing, or it knows no such zone.
        """
        super().__init__(f"entsoe:{area}", clock)
        self._library = _library("entsoe", "entsoe")
        # It reads XML with a parser for HTML, which works, and is told of it each time.
        warnings.filterwarnings("ignore", category=import_module("bs4").XMLParsedAsHTMLWarning, module="entsoe")
        if not os.environ.get(TOKEN):
            raise UsageError(f"{TOKEN} is not set", "ENTSO-E gives a security token to whoever registers")
        try:
            self._area = self._library.mappings.lookup_area(area)
        except (KeyError, ValueError):
            raise UsageError(f"{area[:40]!r} is no bidding zone of ENTSO-E", "such as DE_LU, FR, NL, AT") from None

    def _slots(self, now: datetime) -> list[Slot]:
        stamp = import_module("pandas").Timestamp
        client = self._library.EntsoePandasClient(
            api_key=os.environ.get(TOKEN), retry_count=1, retry_delay=0, timeout=ANSWER
        )
        begin = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        found = client.query_day_ahead_prices(self._area, start=stamp(begin), end=stamp(begin + 2 * _DAY))
        return _until_next([(int(at.timestamp()) * 1000, value) for at, value in found.items()])


class NordpoolSource(Market):
    """Day-ahead prices of a delivery area from Nord Pool, such as NO1 or GER, in euros."""

    def __init__(self, area: str, clock: Callable[[], Instant]) -> None:
        """Raises:
        UsageError: the library is missing, or it knows no such area.
        """
        super().__init__(f"nordpool:{area}", clock)
        self._elspot = _library("nordpool", "nordpool.elspot")
        if area not in self._elspot.Prices.AREAS:
            raise UsageError(f"{area[:40]!r} is no area of Nord Pool", f"one of {', '.join(self._elspot.Prices.AREAS)}")
        self._area = area

    def _slots(self, now: datetime) -> list[Slot]:
        prices = self._elspot.Prices("EUR", timeout=ANSWER)
        # A day begins at midnight in Oslo, an hour or two before it does in UTC.
        days = sorted({(now + timedelta(hours=ahead)).date() for ahead in (1, 2)})
        found: list[Slot] = []
        for day in [*days, days[-1] + _DAY]:
            answer = prices.fetch(end_date=day, areas=[self._area], resolution=15)
            values = answer["areas"][self._area]["values"] if answer else []
            found += [(_instant(row["start"]), _instant(row["end"]), _price(row["value"])) for row in values]
        return found


def _library(extra: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(
            f"prices from {extra} need its library, which is not installed", f"pip install 'penstock[{extra}]'"
        ) from None


def _until_next(prices: list[tuple[int, Any]]) -> list[Slot]:
    """Slots from starts (ms): each lasts until the next, an hour at most, and the last as long as the one before."""
    starts = [at for at, _ in prices]
    lengths = [min(later - at, _HOUR) for at, later in pairwise(starts)]
    ends = [at + length for at, length in zip(starts, [*lengths, *(lengths[-1:] or [_HOUR])], strict=True)]
    return [(Instant(at), Instant(end), _price(value)) for (at, value), end in zip(prices, ends, strict=True)]


def _instant(at: datetime) -> Instant:
    return Instant(int(at.timestamp()) * 1000)


def _price(value: object) -> Decimal:
    """Money a kWh from money a MWh."""
    price = Decimal(repr(float(value)))  # type: ignore[arg-type]  # whatever is no number raises
    if not price.is_finite():
        raise BadRates("a price is missing")
    return price.scaleb(-3)
