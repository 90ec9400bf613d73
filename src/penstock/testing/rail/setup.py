"""What the author of a rail gives the kit: how a session is funded on its ledger, its two ends, and every way out.

The ledger is a real one: a contract on a chain in this process, with real transactions. Nothing here is asked of a rail
that its node would not need as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from penstock.core import rail
from penstock.core.identity import Address, Digest, Key
from penstock.core.offer import Offer
from penstock.core.rail import Capabilities, PayeeEnd, PayerEnd
from penstock.core.session import Role
from penstock.core.units import Instant

Books = Mapping[bytes, bytes]
"""A side's journal: all its rows by key, those of its session among them."""


class Shares(NamedTuple):
    """Whose the token units are: what each side has outside the session's funds, and what is in them."""

    payer: int
    payee: int
    held: int

    def since(self, before: Shares) -> Shares:
        """How much each has gained."""
        return Shares(self.payer - before.payer, self.payee - before.payee, self.held - before.held)


class Ends(Protocol):
    """Both ends of one session's rail, and what its terms say of it."""

    rail_terms: bytes
    deposit: int  # the most that the session can pay (token units)

    def payer(self, books: Books) -> PayerEnd:
        """The payer's end as its journal alone has it; without rows, at the beginning."""
        ...

    def payee(self, books: Books) -> PayeeEnd:
        """The payee's end as its journal alone has it; without rows, at the beginning."""
        ...


class BothFunds(Protocol):
    """One session's money on a ledger of a rail that pays both ways: put there by the payer, and nothing paid yet.

    The duties are those of `Funds`.
    """

    rail_terms: bytes

    def both(self, role: Role, books: Books) -> rail.Ends:
        """This side's two ends as its journal alone has it; without rows, at the beginning."""
        ...

    async def shares(self) -> Shares:
        """Whose the token units are now, as the ledger says."""
        ...

    async def leave(self, role: Role, books: Books) -> None:
        """Begin to end it without the other side, with the best that the journal has."""
        ...

    async def answer(self, role: Role, books: Books) -> None:
        """What this side's node does where it sees that the other has left."""
        ...

    async def collect(self, role: Role) -> None:
        """Pay out what can be paid by now, as this side does it. Nothing where all has been paid."""
        ...


class Funds(Ends, Protocol):
    """One session's money on its ledger: put there by the payer, and nothing of it paid yet.

    What a side does here it does alone, with its own journal, as its node would. Each may raise LedgerError where the
    ledger does not take it, and has then changed nothing.
    """

    async def shares(self) -> Shares:
        """Whose the token units are now, as the ledger says."""
        ...

    async def leave(self, role: Role, books: Books) -> None:
        """Begin to end it without the other side, with the best that the journal has. Nothing where only time helps."""
        ...

    async def answer(self, role: Role, books: Books) -> None:
        """What this side's node does where it sees that the other has left. Nothing where nothing is to be answered."""
        ...

    async def cheat(self, supplier: Books, consumer: Books) -> Role:
        """End it with what is out of date or false, as the side does that gains by it; returns the side that loses.

        Asked only of a rail whose capabilities say that it is `refutable`.
        """
        ...

    async def collect(self, role: Role) -> None:
        """Pay out what can be paid by now, as this side does it. Nothing where all has been paid."""
        ...


class Signed(NamedTuple):
    """A signed thing, in a situation on the ledger in which it is taken.

    `fields` are all that the signature commits to (numbers, bytes, truths, and tuples of those), chain, contract and
    purpose's own included; what is signed is their `digest`. `give` hands them over with a signature, to the ledger or
    to the end that takes it, and raises a PenstockError where it is refused. `state` is all that could have changed by
    it. `on_ledger` says that the ledger itself checks the signature.
    """

    fields: dict[str, Any]
    digest: Callable[[dict[str, Any]], Digest]
    signature: bytes
    signer: Address
    give: Callable[[dict[str, Any], bytes], Awaitable[None]]
    state: Callable[[], Awaitable[object]]
    on_ledger: bool = True


class Coded(NamedTuple):
    """A value of the rail's own with its encoding. `decode` raises a PenstockError for what is no such value."""

    name: str
    value: object
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], object]


class RailSetup(Protocol):
    """One rail on one ledger that is really there."""

    capabilities: Capabilities
    supplier: Key  # signs the session, and its account is paid
    consumer: Key  # signs the session, and its account pays
    deadline: int  # seconds after which each side is out that has left alone

    async def now(self) -> Instant:
        """The ledger's time (ms)."""
        ...

    async def wait(self, seconds: int) -> None:
        """Let so much of the ledger's time pass."""
        ...

    def details(self) -> bytes:
        """What an offer of the supplier's says of this rail."""
        ...

    async def fund(self, offer: Offer, deposit: int) -> Funds:
        """Fund a session under this offer with so many token units, deep enough in the ledger to be final."""
        ...

    async def fund_both(self, offer: Offer, deposit: int) -> BothFunds:
        """As `fund`, of a rail whose direction is "two-way", for an offer with feed-in; the payee puts in nothing."""
        ...

    @property
    def signed(self) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
        """Everything that anybody signs on this rail, by name; each is called for a situation of its own."""
        ...

    @property
    def coded(self) -> Sequence[Coded]:
        """Everything of the rail's that travels or is kept as bytes."""
        ...

    def checked(self) -> list[bytes]:
        """The digests (32 bytes) over which the ledger has recovered a signer since this was last called."""
        ...
