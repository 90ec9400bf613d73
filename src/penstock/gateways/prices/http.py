"""Prices from an HTTP endpoint: asked no more often than it wants, and believed no further than it can be checked.

Caching is HTTP's own (RFC 9111, RFC 9110): an answer is good for its `Cache-Control: max-age`, less its `Age`, within
bounds of ours, and is asked for again with its `ETag` or `Last-Modified`. Over plain HTTP from another machine only
prices that are signed are taken: anybody on the way could write them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from urllib.parse import urljoin, urlsplit

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from penstock.core.errors import BadRates, PriceError, PricesUnreachable, UsageError
from penstock.core.series import MAX_SERIES, Rates
from penstock.gateways.prices.source import Reader, Vouched

ANSWER = 30.0  # seconds for a whole answer; it takes milliseconds
SOONEST, USUAL, LATEST = 15.0, 300.0, 3_600.0  # seconds until we ask again: at least, where nothing is said, at most
MAX_TURNS = 3  # redirections
_CHUNK = 65_536
_MAX_MARK = 512  # characters of an ETag
_KEPT = "the prices that we have stay in force"
_AGE = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?(?P<seconds>[0-9]{1,9})", re.IGNORECASE)
_STALE = re.compile(r"(?:^|,)\s*no-(cache|store)\b", re.IGNORECASE)


class HttpSource:
    """A series at a URL. `name` has neither its query nor a user: they may be secret."""

    def __init__(self, url: str, vouched: Vouched | None = None) -> None:
        """Ask at `url`; the connection is made when it is first asked.

        Raises:
            UsageError: no URL, or one that others could write to.
        """
        self.name = _name(url, signed=vouched is not None)
        self.again = USUAL
        self._url, self._reader = url, Reader(vouched)
        self._session: ClientSession | None = None
        self._marks: dict[str, str] = {}  # what a newer answer is asked for with
        self._rates: Rates | None = None

    async def rates(self) -> Rates:
        """The series as the server has it now; the one before, where it says that it has not changed.

        Raises:
            PricesUnreachable: no answer, or none within bounds. BadRates: an answer that is none of ours.
        """
        self.again = 0.0  # after a failure, unless the server says how long
        try:
            async with asyncio.timeout(ANSWER):
                return await self._ask()
        except PriceError:
            raise
        except TimeoutError:
            why = f"within {ANSWER:g} s"
        except (ClientError, OSError, ValueError) as error:  # ValueError: headers that are none
            why = f"({_clean(str(error)) or type(error).__name__})"
        raise PricesUnreachable(f"no prices from {self.name} {why}", _KEPT)

    async def close(self) -> None:
        """Drop the connection."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self) -> Rates:
        session = self._session = self._session or _session()
        url = self._url
        for _ in range(MAX_TURNS + 1):
            async with session.get(url, headers=self._marks, allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = self._turned(url, response.headers.get("Location", ""))
                    continue
                return await self._answer(response)
        raise PricesUnreachable(f"{self.name} redirects us more than {MAX_TURNS} times", _KEPT)

    def _turned(self, url: str, to: str) -> str:
        """Where a redirection leads. Not from https to http, nor where we would not have asked in the first place."""
        target = urljoin(url, to)
        try:
            _name(target, signed=self._reader.vouched is not None)
        except UsageError:
            target = ""
        if not target or (url.startswith("https:") and not target.startswith("https:")):
            raise PricesUnreachable(f"{self.name} redirects us to where we do not ask", _KEPT)
        return target

    async def _answer(self, response: ClientResponse) -> Rates:
        if response.status == 304 and self._marks and self._rates is not None:
            self.again = _good_for(response)
            return self._rates
        if response.status != 200:
            self.again = _told(response.headers.get("Retry-After", ""))
            raise PricesUnreachable(f"{self.name} answers {response.status}", _KEPT)
        data = await self._body(response)
        try:
            rates = await asyncio.to_thread(self._reader.read, data)  # a year's series would hold up whatever streams
        except BadRates as error:
            raise BadRates(f"{self.name}: {error}", error.advice or _KEPT) from None
        self._rates, self._marks, self.again = rates, _marks(response), _good_for(response)
        return rates

    async def _body(self, response: ClientResponse) -> bytes:
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise PricesUnreachable(f"{self.name} answers in {coding[:20]!r}, unasked", _KEPT)
        found = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            found += chunk
            if len(found) > MAX_SERIES:
                response.close()
                raise PricesUnreachable(f"{self.name} answers with more than {MAX_SERIES:,} bytes", _KEPT)
        return bytes(found)


def _session() -> ClientSession:
    return ClientSession(
        connector=TCPConnector(limit=1),
        timeout=ClientTimeout(total=ANSWER),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


def _name(url: str, *, signed: bool) -> str:
    """A URL that may be asked, as it is shown.

    Raises:
        UsageError: it is none, or unencrypted and of another machine, and nobody signs what comes from there.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.fragment:
        raise UsageError(f"{url[:80]!r} is no URL of prices", "give https://host/path, without user and fragment")
    if parts.scheme == "http" and not signed and not _loopback(host):
        raise UsageError(f"anybody on the way from {host} could write these prices", "use https, or have them signed")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _marks(response: ClientResponse) -> dict[str, str]:
    """What to ask with, so that the server need not answer what it has answered."""
    if 0 < len(tag := response.headers.get("ETag", "")) <= _MAX_MARK:
        return {"If-None-Match": tag}
    if 0 < len(since := response.headers.get("Last-Modified", "")) <= _MAX_MARK:
        return {"If-Modified-Since": since}
    return {}


def _good_for(response: ClientResponse) -> float:
    """Seconds until it is worth asking again."""
    said = response.headers.get("Cache-Control", "")
    found = _AGE.search(said)
    if _STALE.search(said) or found is None:
        return USUAL
    return min(LATEST, max(SOONEST, int(found["seconds"]) - _told(response.headers.get("Age", ""))))


def _told(seconds: str) -> float:
    """Seconds in a header; 0 where it has none. A date there is not read: our own pauses do as well."""
    return min(LATEST, float(seconds)) if seconds.isascii() and seconds.isdigit() and len(seconds) < 10 else 0.0


def _clean(text: str) -> str:
    return "".join(sign for sign in " ".join(text.split())[:120] if sign.isprintable())
