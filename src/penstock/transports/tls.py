"""Links over TCP and TLS 1.3: `connect` to a machine, or `serve` those that come.

link = await connect("203.0.113.7", 7070, key, expect=supplier)
link.attach(on_frame, on_lost)
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Callable
from dataclasses import replace

from penstock.core.errors import LinkLost, PeerRefused, PenstockError, UsageError
from penstock.core.identity import Address, Key
from penstock.transports.certificate import contexts
from penstock.transports.link import Limits, TlsLink
from penstock.transports.rounds import Rounds

__all__ = ["Limits", "Server", "TlsLink", "connect", "serve"]

LINGERING = 32  # links above the limit whose last word may be on its way
RESERVE = 128  # descriptors that are kept for everything but links
_USUAL = Limits()


async def connect(
    host: str,
    port: int,
    key: Key,
    *,
    expect: Address | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - it covers name, TCP, TLS and proof, and ends in an error of ours
    limits: Limits = _USUAL,
) -> TlsLink:
    """An open link to the machine at `host`:`port`, which has proven the key of `expect` where that is given.

    Raises:
        UsageError: no such host name or port can be.
        LinkLost: it cannot be reached, or went away, within `timeout` seconds.
        BadSignature: it is somebody else, or somebody is in between.
        BadFrame: it does not speak Penstock over TLS 1.3.
        PeerRefused: no common version, or the peer's own reason.
    """
    _check_port(port, 1)
    loop = asyncio.get_running_loop()
    dial = _Dial(loop.create_future(), limits.idle_timeout / 3)
    link = TlsLink(key, "client", limits, dial, expect)
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: link, host, port)
            await dial.opening
            dial.wanted = True
            return link
    except TimeoutError:
        raise LinkLost(f"no link to {host}:{port} within {timeout:g} s", "check address and network") from None
    except UnicodeError:
        raise UsageError(f"{host[:80]!r} is no host name") from None
    except OSError as error:
        raise LinkLost(f"cannot reach {host}:{port} ({_os_reason(error)})", "check that it is running") from None
    finally:
        if not dial.wanted:
            link.close()


async def serve(
    host: str,
    port: int,
    key: Key,
    on_link: Callable[[TlsLink], None],
    *,
    on_full: Callable[[], bool] = lambda: False,
    limits: Limits = _USUAL,
) -> Server:
    """Listen on `host`:`port` (0 takes a free one) and give each link that has proven its key to `on_link`.

    `on_link` attaches to the link, or keeps it to do so soon; a PenstockError from it refuses the link. `on_full` is
    called where there is no room for one more: it closes a link that is of no use, or returns False. What descriptors
    the process may have bounds how many links there are, too; where they run out nevertheless, uvloop turns away those
    who come.

    Raises:
        UsageError: the address cannot be listened on: in use, not ours, or not allowed.
    """
    _check_port(port, 0)
    loop = asyncio.get_running_loop()
    contexts()  # makes a file for a moment, which must not happen when descriptors have run out
    limits = _within_descriptors(limits)
    server = Server(on_link, on_full, limits)
    try:
        listener = await loop.create_server(lambda: TlsLink(key, "server", limits, server), host, port, backlog=1024)
    except (OSError, UnicodeError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise UsageError(
            f"cannot listen on {host}:{port} ({_os_reason(error)})",
            "choose another port, or 0 for a free one" if in_use else "choose an address of this machine",
        ) from None
    server.listens(listener)
    return server


class Server:
    """Accepts links until it is closed."""

    port: int

    def __init__(self, on_link: Callable[[TlsLink], None], on_full: Callable[[], bool], limits: Limits) -> None:
        self._on_link, self._on_full, self._limits = on_link, on_full, limits
        self._pending: dict[TlsLink, None] = {}  # in the order in which they came
        self._links = Rounds(limits.idle_timeout / 3)
        self._closing = False
        self._empty = asyncio.Event()

    def listens(self, listener: asyncio.Server) -> None:
        """Take charge of a listening socket."""
        self._listener = listener
        self.port = listener.sockets[0].getsockname()[1]

    @property
    def links(self) -> int:
        """How many links are open."""
        return len(self._links)

    @property
    def pending(self) -> int:
        """How many connections have not proven their key yet."""
        return len(self._pending)

    async def close(self) -> None:
        """Stop listening and close every link. Peers see a link that ended: they may resume it elsewhere."""
        self._closing = True
        self._listener.close()
        for link in [*self._pending]:
            link.abort()
        for link in self._links.links():
            link.close()
        while self._pending or len(self._links):
            self._empty.clear()
            await self._empty.wait()
        await self._listener.wait_closed()

    def begun(self, link: TlsLink) -> None:
        if self._closing:
            link.abort()
            return
        if len(self._pending) >= self._limits.max_pending:
            # The oldest: those who stall stay, and the honest need a moment only. Refusing the newest instead would
            # let a few who stall shut everybody out.
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.abort()
        self._pending[link] = None

    def opened(self, link: TlsLink) -> None:
        self._pending.pop(link, None)
        full = len(self._links) >= self._limits.max_links
        self._links.add(link)  # even to refuse it: it is there until its last word has arrived
        if len(self._links) > self._limits.max_links + LINGERING:  # a peer that never hears it keeps a descriptor
            for leaving in [one for one in self._links.links() if one.ended]:
                leaving.abort()
        if full and not self._on_full():
            raise PeerRefused("no room for another link here")
        self._on_link(link)

    def failed(self, link: TlsLink, error: PenstockError) -> None:
        """Nobody was there yet to be told."""

    def gone(self, link: TlsLink) -> None:
        self._pending.pop(link, None)
        self._links.discard(link)
        self._empty.set()


class _Dial:
    """The owner of a link that `connect` opens."""

    def __init__(self, opening: asyncio.Future[None], pause: float) -> None:
        self.opening = opening
        self.wanted = False  # `connect` gave up, or has not got it yet
        self._pause = pause  # seconds between two calls of `listen`
        self._timer: asyncio.TimerHandle | None = None

    def begun(self, link: TlsLink) -> None:
        pass

    def opened(self, link: TlsLink) -> None:
        if not self.opening.done():
            self.opening.set_result(None)
        self._wait(link)

    def _wait(self, link: TlsLink) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._listen, link)

    def _listen(self, link: TlsLink) -> None:
        self._wait(link)
        link.listen()

    def failed(self, _link: TlsLink, error: PenstockError) -> None:
        if not self.opening.done():
            self.opening.set_exception(error)

    def gone(self, link: TlsLink) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _within_descriptors(limits: Limits) -> Limits:
    """No more links than there may be descriptors, with some left for journal and ledger.

    Everybody may raise the soft limit, which is often 1,024, up to the hard one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_links + limits.max_pending + RESERVE
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = max(2, soft - RESERVE)
    pending = min(limits.max_pending, room // 4)
    return replace(limits, max_links=min(limits.max_links, room - pending), max_pending=pending)


def _check_port(port: int, least: int) -> None:
    if not least <= port <= 65535:
        raise UsageError(f"{port} is no port", f"choose one in {least}..65535")


def _os_reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number and number > 0 else str(error)[:120] or "unknown"
