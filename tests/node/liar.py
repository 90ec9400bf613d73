"""A supplier that lies: it serves real links and answers as a test's script says, with messages made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from penstock.core.errors import RemoteError
from penstock.core.identity import Key
from penstock.core.messages import Accepted, AskOffer, Offered, Paid, Propose, Resume
from penstock.core.offer import Offer, accept_digest, sign_offer
from penstock.core.units import Amount
from penstock.node import clock
from penstock.rails.stream import StreamPayee, decode_terms
from penstock.transports.tls import Server, TlsLink, serve

from .world import HOST, Street, Thief

Script = Callable[["Liar", Thief], Awaitable[None]]


class Liar:
    """One lying supplier. `won` is what it could take to the ledger."""

    def __init__(self, it: Street, key: Key, script: Script) -> None:
        self.it, self.key, self.script = it, key, script
        self.server: Server
        self.proposals: list[Propose] = []
        self.payee: StreamPayee | None = None
        self.links = 0
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def won(self) -> Amount:
        return self.payee.secured if self.payee else Amount(0)

    @property
    def digest(self) -> bytes:
        return self.proposals[0].terms.digest()

    def offer(self, **changes: Any) -> Offer:
        """An honest pole's offer in the liar's name, with `changes`."""
        honest = self.it.supplier.offer().offer
        rails = {name: details.replace(*self._names()) for name, details in honest.rails.items()}
        own = msgspec.structs.replace(honest, supplier=self.key.address, rails=rails, expires=clock.now() + 60_000)
        return msgspec.structs.replace(own, **changes)

    def _names(self) -> tuple[bytes, bytes]:
        """The honest payee and the liar as they stand in a rail's details."""
        honest, liar = (msgspec.json.encode(key.address) for key in (self.it.key, self.key))
        return honest, liar

    def signed(self, **changes: Any) -> Offered:
        offer = self.offer(**changes)
        return Offered(offer, sign_offer(self.key, offer))

    async def accepts(self, peer: Thief, **changes: Any) -> None:
        """Offer, and accept what is proposed."""
        await peer.hear(AskOffer)
        peer.send(self.signed(**changes))
        propose = await self.proposed(peer)
        peer.send(Accepted(self.key.sign(accept_digest(propose.terms.digest())), b""))

    async def proposed(self, peer: Thief) -> Propose:
        propose: Propose = await peer.hear(Propose)
        self.proposals.append(propose)
        self.payee = StreamPayee(decode_terms(propose.terms.rail_terms), 10**9)
        self.payee.take(propose.evidence)
        return propose

    def takes(self, paid: Paid) -> None:
        """Keep what was paid."""
        assert self.payee is not None
        for evidence in paid.evidence:
            self.payee.take(evidence)

    async def resumed(self, peer: Thief) -> None:
        await peer.hear(Resume)

    def on_link(self, link: TlsLink) -> None:
        self.links += 1
        task = asyncio.ensure_future(self._run(Thief(link)))
        self._tasks.add(task)

    async def _run(self, peer: Thief) -> None:
        with suppress(AssertionError, RemoteError, TimeoutError):  # the car has left
            await self.script(self, peer)
        while not peer.inbox.empty():
            message = peer.inbox.get_nowait()
            if isinstance(message, Paid):
                self.takes(message)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.close()


@asynccontextmanager
async def lying(it: Street, script: Script) -> AsyncIterator[Liar]:
    liar = Liar(it, it.fresh_key(), script)
    liar.server = await serve(HOST, 0, liar.key, liar.on_link)
    try:
        yield liar
    finally:
        await liar.close()
