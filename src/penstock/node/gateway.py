"""One node that sells at many poles through one listening server (many-to-one).

A link is led to a pole by what it asks: `AskPole` by name, `AskOffer` to any pole that is free, `Propose` by the name
in its offer, `Resume` by the session that it names.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from penstock.core.errors import Busy, PeerRefused, UsageError
from penstock.core.messages import AskOffer, AskPole, Propose
from penstock.core.ports import Link
from penstock.core.session import Patience, Role, Session
from penstock.node import book
from penstock.node.site import Site
from penstock.node.supplier import BUSY, GOODBYE, Goods, Pole, Supplier
from penstock.node.visit import Asked, Visit, Visits


class Gateway:
    """Sells the same goods at each of its poles. `on_session(session)` hears of each session that has ended.

    Nothing that a payment touches grows with the number of poles.
    """

    def __init__(
        self,
        site: Site,
        poles: Iterable[Pole],
        goods: Goods,
        patience: Patience | None = None,
        on_session: Callable[[Session], None] = lambda session: None,
    ) -> None:
        """
        Raises:
            UsageError: no pole, or two of one name.
        """
        self.site = site
        self.visits = Visits()
        self.free: OrderedDict[str, Supplier] = OrderedDict()  # the poles without a session, longest unasked first
        self.poles: dict[str, Supplier] = {}
        for pole in poles:
            if pole.name in self.poles:
                raise UsageError(f"two poles are called {pole.name!r}", "give each a name of its own")
            self.poles[pole.name] = Supplier(site, pole, goods, patience, on_session, self.free, self.visits)
        if not self.poles:
            raise UsageError("a gateway needs a pole")

    async def restore(self) -> None:
        """Take up the unfinished sessions of our poles from the journal. Their consumers have to come back."""
        for row in book.unfinished(self.site.journal, Role.SUPPLIER):
            supplier = self.poles.get(row.terms.offer.name)
            if supplier is not None:
                supplier.take_up(row)
        self.site.start()

    async def close(self) -> None:
        """Stop all running sessions for good, with the operator as the reason, and let go."""
        for supplier in self.poles.values():
            supplier.stop()
        try:
            for _ in range(int(GOODBYE / 0.05)):
                if all(supplier.idle for supplier in self.poles.values()):
                    break
                await asyncio.sleep(0.05)
        finally:
            for supplier in self.poles.values():
                supplier.shut_valve()

    def on_link(self, link: Link) -> None:
        """A peer has come."""
        self.visits.add(Visit(self, link))

    def left(self, visit: Visit, in_order: bool) -> None:
        """A visit's link is gone (`Door`)."""
        self.visits.discard(visit)

    def pole_for(self, asked: Asked) -> Supplier:
        """The pole that is asked (`Door`).

        Raises:
            PeerRefused: there is none of that name, or none is free.
        """
        match asked:
            case AskOffer():
                return self._any_free()
            case AskPole():
                name = asked.name
            case Propose():
                name = asked.terms.offer.name
            case _:
                row = book.session_of(self.site.journal, asked.terms)
                name = row.terms.offer.name if row else ""
                if name not in self.poles:  # every pole can say how a session ended, or that there was none
                    return next(iter(self.poles.values()))
        supplier = self.poles.get(name)
        if supplier is None:
            raise PeerRefused(f"no pole {name[:80]!r} here")
        return supplier

    def _any_free(self) -> Supplier:
        """The free pole that was not asked for longest: those who come together are led to different ones."""
        if not self.free:
            raise Busy(BUSY)
        name = next(iter(self.free))
        self.free.move_to_end(name)
        return self.free[name]
