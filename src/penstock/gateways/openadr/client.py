"""The grid's server (a VTN of OpenADR 3.1) as seen from a site: one question, one checked answer, every failure typed.

It may be slow, lie or flood: an answer is read up to a bound and no further, within a deadline; redirections are not
followed (they would take the token elsewhere); compressed bodies are not taken. Tokens come by client credentials (RFC
6749, 4.4) from the endpoint that the server names, which must be on the same host unless the operator names it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping
from typing import TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from msgspec import Raw

from penstock.core.errors import BadSignal, GridError, GridRefused, GridUnreachable, UsageError
from penstock.gateways.openadr import forms
from penstock.gateways.openadr.credentials import Credentials

ANSWER = 20.0  # seconds for a whole answer; it takes milliseconds
CONNECTIONS = 4
MAX_BODY = 4 * 2**20  # bytes of an answer, which is a page of a list; a day of quarter hours has 15 kB
PAGE = 50  # what a server gives at once, at most: the description's bound
MAX_PAGES = 10
_MARGIN = 30.0  # seconds before its end that a token is renewed, where it lives longer than twice that
_CHUNK = 65_536

T = TypeVar("T")
Query = Mapping[str, str | list[str]]


class Client:
    """Questions to one server. Must be made inside a running event loop; close it when done."""

    def __init__(self, url: str, credentials: Credentials, token_url: str | None = None) -> None:
        """`url` is the API's base. `token_url` goes before what the server says; it may be on another host.

        Raises:
            UsageError: a URL is none, or would send the secret in the clear to another machine.
        """
        self.place = _place(url)
        self._base = url.rstrip("/")
        if token_url is not None:
            _place(token_url)
        self._named = token_url
        self._credentials = credentials
        self._token = ""
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()
        self._session = ClientSession(
            connector=TCPConnector(limit=CONNECTIONS),
            timeout=ClientTimeout(total=ANSWER),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Drop the connections."""
        await self._session.close()

    async def one(self, path: str, form: type[T]) -> T:
        """The object at `path`.

        Raises:
            GridUnreachable: no answer, or none of that form.
            GridRefused: the server says no.
        """
        return self._formed(await self._ask("GET", path, {}, None), form)

    async def pages(self, path: str, query: Query) -> AsyncIterator[list[Raw]]:
        """A list, page after page, at most MAX_PAGES of them, each at most MAX_BODY.

        Raises:
            GridUnreachable: no answer, no list, or more than that in a page.
            GridRefused: the server says no.
        """
        seen, skip = set[str](), 0
        for _ in range(MAX_PAGES):
            body = await self._ask("GET", path, {**query, "skip": str(skip), "limit": str(PAGE)}, None)
            page = self._formed(body, list[Raw])
            first = forms.identity(page[0]) if page else ""
            if first in seen:  # a server that knows no pages says the same again
                return
            seen.add(first)
            skip += len(page)
            yield page
            if len(page) < PAGE:
                return

    async def short(self, path: str, query: Query) -> list[Raw]:
        """The first page of a list, which is all of a short one. Raises as `pages` does."""
        return self._formed(await self._ask("GET", path, query, None), list[Raw])

    async def create(self, path: str, what: object) -> str:
        """Create an object; returns its id. Raises as `one` does."""
        return self._formed(await self._ask("POST", path, {}, what), forms.Named).id

    async def update(self, path: str, what: object) -> None:
        """Replace the object at `path`. Raises as `one` does."""
        await self._ask("PUT", path, {}, what)

    async def delete(self, path: str) -> None:
        """Delete the object at `path`. Raises as `one` does."""
        await self._ask("DELETE", path, {}, None)

    def _formed(self, body: bytes, form: type[T]) -> T:
        try:
            return forms.decode(body, form, "an answer")
        except BadSignal as error:
            raise GridUnreachable(
                f"{self.place}: {forms.clean(str(error), 240)}", "check that the URL is that of a VTN"
            ) from None

    async def _ask(self, method: str, path: str, query: Query, what: object) -> bytes:
        body = forms.written(what) if what is not None else None
        for again in (True, False):
            token = await self._bearer()
            headers = {"Authorization": f"Bearer {token}"} | ({"Content-Type": "application/json"} if body else {})
            status, answer = await self._send(method, self._base + path, MAX_BODY, headers, query, body)
            if status == 401 and again:
                self._spoilt(token)
                continue
            break
        self._check(f"{method} {path.split('/')[1]}", status, answer)
        return answer

    def _check(self, what: str, status: int, answer: bytes) -> None:
        if 200 <= status < 300:
            return
        if 400 <= status < 500:
            said = forms.clean(answer[:400].decode(errors="replace"), 200)
            advice = "check the credentials, and what the server lets them do" if status in (401, 403) else ""
            raise GridRefused(f"{self.place} refuses {what} with {status} ({said})", advice, status)
        sent = "redirects us" if 300 <= status < 400 else f"answers {status}"
        raise GridUnreachable(f"{self.place} {sent}, asked to {what}", "its last orders stay in force")

    async def _send(
        self, method: str, url: str, room: int, headers: dict[str, str], query: Query, body: bytes | None
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method, url, params=query, data=body, headers=headers, allow_redirects=False
            ) as response:
                return response.status, await self._read(response, room)
        except GridError:
            raise
        except TimeoutError:
            why = f"within {ANSWER:g} s"
        except (ClientError, OSError, ValueError) as error:  # ValueError: headers that are none
            why = f"({' '.join(str(error).split())[:120] or type(error).__name__})"
        raise GridUnreachable(f"no answer from {self.place} {why}", "its last orders stay in force") from None

    async def _read(self, response: ClientResponse, room: int) -> bytes:
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise GridUnreachable(f"{self.place} answers in {coding[:20]!r}, unasked")
        found = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            found += chunk
            if len(found) > room:
                response.close()
                raise GridUnreachable(f"{self.place} answers with more than {room:,} bytes", "nothing of it was read")
        return bytes(found)

    # Tokens

    async def _bearer(self) -> str:
        async with self._renewing:
            if not self._token or asyncio.get_running_loop().time() >= self._renew_at:
                await self._renew()
            return self._token

    def _spoilt(self, token: str) -> None:
        """A token that was not taken is not used again; one that came meanwhile stays."""
        if token == self._token:
            self._token = ""

    async def _renew(self) -> None:
        url = self._named or await self._discovered()
        fields = {
            "grant_type": "client_credentials",
            "client_id": self._credentials.client,
            "client_secret": self._credentials.secret,
        }
        form = urlencode(fields).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer = await self._send("POST", url, _CHUNK, headers, {}, form)
        self._check("a token", status, answer)
        token = self._formed(answer, forms.Token)
        now = asyncio.get_running_loop().time()
        life = token.expires_in if token.expires_in is not None and token.expires_in > 0 else None
        self._renew_at = now + max(life - _MARGIN, life / 2) if life is not None else float("inf")
        self._token = token.access_token

    async def _discovered(self) -> str:
        status, answer = await self._send("GET", self._base + "/auth/server", _CHUNK, {}, {}, None)
        self._check("GET auth", status, answer)
        said = self._formed(answer, forms.TokenServer).token_url
        try:
            url = urljoin(self._base + "/", said)
            same = _place(url) == self.place
        except (UsageError, ValueError):
            url, same = said, False
        if not same:
            raise GridRefused(
                f"{self.place} would have us show our secret to {url[:100]!r}", "name the token's URL, if that is right"
            )
        return url


def _place(url: str) -> str:
    """The scheme, host and port of a URL that may be asked.

    Raises:
        UsageError: it is none, or unencrypted and of another machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise UsageError(f"{url[:80]!r} is no URL of a VTN", "give https://host/path, without user, query and fragment")
    if parts.scheme == "http" and not _loopback(host):
        raise UsageError(f"the secret would go to {host} in the clear", "use https")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or (443 if parts.scheme == 'https' else 80)}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
