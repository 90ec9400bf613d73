"""A world of hubs from one seed: one to three of them between payers and payees, under virtual time, with faults and
thieves.

    outcome = HopWorld(seed).run()

For some minutes everything goes wrong that was drawn. Then all is healed, every lock expires, honest parties claim what
is theirs, all channels are closed and settled. What must hold in the end: there are as many tokens as before; no honest
hub has less than it had; an honest payee has at least what it could prove; an honest payer has paid for no more ticks
than it revealed, and its fees; and nothing is stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from penstock.core.channel import Domain
from penstock.core.errors import LedgerError
from penstock.core.hops import filing_of
from penstock.core.identity import Address, Key
from penstock.core.session import Role
from penstock.core.ticks import TickChain
from penstock.node import book
from penstock.sim.chain import Chain
from penstock.sim.checks import Violation
from penstock.sim.hop_actors import (
    DELTA,
    LIFE,
    PERIOD,
    HopActor,
    HubActor,
    PayeeActor,
    PayerActor,
)
from penstock.sim.life import Life, task_of_a_life
from penstock.sim.network import Network
from penstock.sim.tender import SimLedger
from penstock.sim.trace import Trace
from penstock.sim.virtual import Deadlock, VirtualLoop
from penstock.sim.world import DOMAIN, Outcome

MONEY = 20_000_000  # token units in each wallet
TROUBLE = 240.0  # seconds
FAR = 12 * 3_600_000  # ms that a hub's clock may jump
PAYERS = ("never settles", "closes early", "vanishes")
PAYEES = ("old voucher", "silent", "last block", "vanishes")
FAULTS = ("crash", "fuse", "reset", "cut", "unreachable", "jump", "slow disk", "full disk", "reorganise", "stall")


class HopWorld:
    """One seed's world. A calm one has neither faults nor thieves."""

    domain: Domain = DOMAIN

    def __init__(self, seed: int, calm: bool = False, log: Callable[[str], None] | None = None) -> None:
        self.seed, self.calm = seed, calm
        self.rng = Random(f"hubs {seed}")  # noqa: S311 - a simulation has to be repeatable
        self.loop = VirtualLoop()
        self.loop.set_task_factory(task_of_a_life)  # type: ignore[arg-type]  # typeshed's protocol is narrower
        self.loop.set_exception_handler(self._on_fault)
        self.trace = Trace(self.loop.time, log)
        air = self.child()
        self.network = Network(self.loop, self.child(), lambda: air.uniform(0.005, 0.05))
        self.chain = Chain(self.loop, self.child())
        self.seeds, self.paid = seed * 1_000, 0
        self.chains: dict[bytes, TickChain] = {}
        self._violation = ""
        count = self.rng.choice((1, 1, 2, 3))
        names = [f"hub{number + 1}" for number in range(count)]
        self.payees = [PayeeActor(self, f"payee{n + 1}", _key(20 + n)) for n in range(self.rng.choice((1, 2)))]
        ends = [payee.name for payee in self.payees]
        self.hubs = []
        for at, name in enumerate(names):
            onward = [names[at + 1]] if at + 1 < count else ends
            if at + 1 < count and self.rng.random() < 0.3:
                onward = [*onward, ends[0]]  # a second way, past the rest
            self.hubs.append(HubActor(self, name, _key(30 + at), onward))
        self.payers = [
            PayerActor(self, f"payer{n + 1}", _key(10 + n), names[0]) for n in range(self.rng.choice((1, 2)))
        ]
        self.actors: list[HopActor] = [*self.payees, *self.hubs, *self.payers]
        if not calm:
            for payer in self.payers:
                payer.cheat = self.rng.choice(("", "", *PAYERS))
            for payee in self.payees:
                payee.cheat = self.rng.choice(("", "", *PAYEES))
        for actor in self.actors:
            self.chain.fund(actor.key.address, MONEY)

    def child(self) -> Random:
        """Random numbers for somebody who must not disturb the others'."""
        return Random(self.rng.randbytes(16))  # noqa: S311 - a simulation has to be repeatable

    def known(self, root: bytes) -> tuple[int, bytes]:
        """What a thief knows of a chain: all of it where its payer is one, too, else what was revealed."""
        chain = self.chains[root]
        owner = next((payer for payer in self.payers if root in payer.values), None)
        count = chain.ticks if owner is None or owner.cheat else owner.revealed.get(root, 0)
        return count, chain.preimage(count)

    def run(self) -> Outcome:
        """Live through it."""
        try:
            self.loop.run(self._live())
        except (Violation, Deadlock) as error:
            self._violation = self._violation or f"{type(error).__name__.lower()}: {error}"
        hash_ = self.trace.digest()
        seconds = self.loop.time()
        return Outcome(self.seed, hash_, self._violation, self.trace.events, self.paid, seconds, list(self.trace.tail))

    async def _live(self) -> None:
        mining = asyncio.ensure_future(self.chain.run())
        self.tokens = self.chain.head.accounts.tokens
        for actor in self.actors:
            actor.start()
        await self._until(self._ready, 120)
        work = [asyncio.ensure_future(self._pay(payer)) for payer in self.payers]
        if not self.calm:
            work.append(asyncio.ensure_future(self._trouble()))
            work += [asyncio.ensure_future(self._cheat(actor)) for actor in (*self.payers, *self.payees) if actor.cheat]
        await asyncio.sleep(TROUBLE)
        self._heal()
        await asyncio.gather(*work)
        await self._until(self._folded, LIFE + DELTA * (len(self.hubs) + 1) + PERIOD)
        for actor in self.actors:  # a hub that lives would lend anew
            actor.vanish()
        self._ledger = SimLedger(self.chain, self.domain, Life("court", self.loop), lambda: 0.05)
        await self._close_all()
        self._audit()
        mining.cancel()

    def _ready(self) -> bool:
        hubs = all(
            actor.hub is not None and len(actor.hub.relay.neighbours) == len(actor.onward) for actor in self.hubs
        )
        return hubs and all(hasattr(payer, "neighbour") and payer.neighbour.ready.is_set() for payer in self.payers)

    async def _pay(self, payer: PayerActor) -> None:
        rng = self.child()
        for _ in range(rng.randint(1, 4)):
            await asyncio.sleep(rng.uniform(0, 25))
            if payer.life.alive:
                ticks = rng.randint(1, 40)
                await payer.pay(
                    rng.choice(self.payees),
                    ticks,
                    rng.choice((1, 99, 700)),
                    rng.randint(0, ticks),
                    rng.uniform(0.05, 2),
                )
                self.paid += 1

    async def _cheat(self, actor: HopActor) -> None:
        await asyncio.sleep(self.child().uniform(20, TROUBLE))
        self.trace(actor.name, "cheats", how=actor.cheat)
        if actor.cheat == "vanishes":
            actor.vanish()
        elif isinstance(actor, PayerActor) and actor.cheat == "closes early" and actor.life.alive:
            await asyncio.wait([actor.life.spawn(actor.close_early())])
        elif isinstance(actor, PayeeActor) and actor.cheat in ("old voucher", "silent") and actor.life.alive:
            await asyncio.wait([actor.life.spawn(actor.rob())])

    async def _trouble(self) -> None:
        rng = self.child()
        end = self.loop.time() + TROUBLE - 20
        while (left := end - self.loop.time()) > 0:
            await asyncio.sleep(min(left, rng.expovariate(1 / 20)))
            self._fault(rng, rng.choice(FAULTS), rng.choice([one for one in self.actors if not one.gone]))

    def _fault(self, rng: Random, kind: str, actor: HopActor) -> None:
        lasts = rng.uniform(2, 20)
        self.trace("world", "fault", kind=kind, target=actor.name, lasts=round(lasts, 1))
        later = self.loop.call_later
        match kind:
            case "crash":
                actor.crash()
            case "fuse":
                actor.life.fuse = rng.randint(1, 120)
            case "reset" | "cut":
                other = rng.choice(self.actors)
                if kind == "reset":
                    self.network.reset(actor.name, other.name)
                else:
                    self.network.cut(actor.name, other.name)
                    later(lasts, self.network.heal, actor.name, other.name)
            case "unreachable" if hasattr(actor, "ledger"):
                ledger = actor.ledger
                ledger.out_of_reach = True
                later(lasts, lambda: setattr(ledger, "out_of_reach", False))
            case "jump" if isinstance(actor, HubActor):
                actor.skew = rng.choice((rng.randint(-FAR, FAR), rng.randint(-100_000, 100_000), 0))
            case "slow disk":
                pace, actor.disk.pace = actor.disk.pace, lambda: rng.uniform(0.1, 1.0)
                later(lasts, lambda: setattr(actor.disk, "pace", pace))
            case "full disk":
                actor.disk.fault = "no space left"
                later(min(lasts, 5), lambda: setattr(actor.disk, "fault", ""))
            case "reorganise":
                self.chain.reorganise(rng.randint(1, 3), rng.choice((0.0, 0.3)))
            case "stall":
                self.chain.stalled = True
                later(lasts, lambda: setattr(self.chain, "stalled", False))

    def _heal(self) -> None:
        self.trace("world", "all healed")
        for actor in self.actors:
            actor.life.fuse, actor.skew, actor.disk.fault = 0, 0, ""
            actor.disk.pace = lambda: 0.001
            actor.ledger.out_of_reach = False
        self.chain.stalled = False

    async def _until(self, met: Callable[[], bool], seconds: int) -> None:
        for _ in range(0, seconds, 5):
            if met():
                return
            await asyncio.sleep(5)

    async def _close_all(self) -> None:
        """Every channel is closed by whom it pays, with what its journal holds, or by its payer, and settled."""
        for role in (Role.SUPPLIER, Role.CONSUMER):
            for actor, row in self._rows(role):
                filing = filing_of(*book.hops_in(actor.disk, row.params.id)) if role is Role.SUPPLIER else None
                if role is Role.CONSUMER or (filing is not None and filing.signature):
                    await self._try(actor, row, "open", partial(self._ledger.close, actor.key, row.params, filing))
        for _ in range((PERIOD + LIFE + DELTA * (len(self.hubs) + 1)) // 30 + 4):
            await asyncio.sleep(30)
            for actor, row in self._rows(Role.CONSUMER):
                await self._try(actor, row, "closing", partial(self._ledger.settle, actor.key, row.params))
                await self._try(
                    actor, row, "open", partial(self._ledger.close, actor.key, row.params, None)
                )  # mined late
            if self._settled():
                return

    def _settled(self) -> bool:
        return all(channel.status == "ended" for channel in self.chain.head.accounts.channels.values())

    def _folded(self) -> bool:
        """Whether no lock is under any voucher that is still held, and nobody has a close to answer."""
        held = [(actor, row) for actor, row in self._rows(Role.SUPPLIER) if not row.settled]
        closing = any(channel.status == "closing" for channel in self.chain.head.accounts.channels.values())
        return not closing and not any(book.hops_in(actor.disk, row.params.id)[1] for actor, row in held)

    def _rows(self, role: Role) -> list[tuple[HopActor, book.ChannelRow]]:
        """The channels in which an actor has this role, by the journals."""
        return [(actor, row) for actor in self.actors for row in book.each_channel(actor.disk) if row.role is role]

    async def _try(self, actor: HopActor, row: book.ChannelRow, status: str, send: Callable[[], Any]) -> None:
        try:
            if (await self._ledger.channel(row.params)).status == status:
                await send()
        except LedgerError as error:
            self.trace(actor.name, "not sent", error=error.line()[:80])

    def _audit(self) -> None:
        accounts = self.chain.head.accounts
        if accounts.tokens != self.tokens:
            self._fail(f"conservation: {accounts.tokens} tokens where there were {self.tokens}")
        stuck = [channel for channel in accounts.channels.values() if channel.status != "ended"]
        if stuck:
            self._fail(f"exit: {len(stuck)} channels are not settled in the end: {[one.status for one in stuck]}")

        def gain(actor: HopActor) -> int:
            owner: Address = actor.key.address
            return accounts.wallets[owner] + accounts.balances[owner] - MONEY

        for hub in self.hubs:
            if gain(hub) < 0:
                self._fail(f"hub: {hub.name} has lost {-gain(hub)}")
        for payer in self.payers:
            if not payer.cheat:
                most = sum(payer.revealed.get(root, 0) * value + fee for root, (value, fee) in payer.values.items())
                if -gain(payer) > most:
                    self._fail(f"payer: {payer.name} has lost {-gain(payer)}, {most} were revealed")
        for payee in self.payees:
            if not payee.cheat and gain(payee) < payee.least:
                self._fail(f"payee: {payee.name} has {gain(payee)} of the {payee.least} that it could prove")

    def _fail(self, why: str) -> None:
        self._violation = self._violation or why

    def _on_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if "never retrieved" not in context["message"]:
            self._fail(f"fault: {context['message']}: {fault!r}")


def _key(number: int) -> Key:
    return Key(number.to_bytes(32, "big"))
