"""A hub that dies between any two things that it writes, and is started again from what was durable by then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.core.effects import Rows
from penstock.core.errors import JournalError
from penstock.storage.sqlite import SqliteJournal

from .world import FEES, TICK, HopWorld, until

pytestmark = pytest.mark.asyncio
FEE = FEES.tick(TICK) - TICK
REST = 699
MOST = 60  # writes in a lock's life, and many more


class Dying:
    """A journal whose node dies once the next `left` writes are durable: it never hears so, and writes no more."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal
        self.left: int | None = None
        self.dead = asyncio.Event()

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._journal.load(prefix)

    def write(self, rows: Rows, done: Callable[[Exception | None], None]) -> None:
        if self.left is None:
            self._journal.write(rows, done)  # type: ignore[arg-type]  # as it stands there
            return
        self.left -= 1
        if self.left > 0:
            self._journal.write(rows, done)  # type: ignore[arg-type]
        elif self.left == 0:
            self._journal.write(rows, lambda error: self.dead.set())

    async def close(self) -> None:
        await self._journal.close()


async def life(world: HopWorld, dies: Dying) -> int:
    """A lock from its promise to its end; what its payer paid for it, by the ticks. The hub is revived when it dies."""

    async def revive() -> None:
        await dies.dead.wait()
        await world.stop_hub()
        await world.start_hub()

    reviving = asyncio.ensure_future(revive())
    try:
        chain = world.chain()
        number = world.locked(chain)
        await until(lambda: number in world.listener.places or number in world.listener.ends)
        if number in world.listener.places:
            asked = len(world.payee.asked)
            world.payer.ask(number, 3, chain.preimage(3), REST)
            await until(lambda: len(world.payee.asked) > asked)
            place = world.payee.asked[-1].number
            await world.payee.done(place, 3, chain.preimage(3), 3 * TICK)
        await until(lambda: number in world.listener.gone)
        await until(lambda: world.onward.outgoing is not None and not world.onward.outgoing.all)
        if dies.dead.is_set():
            await reviving
        return world.listener.ends[number].count
    finally:
        reviving.cancel()


async def test_a_hub_that_dies_after_any_write_loses_nothing(world: HopWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledged means durable: what is durable after each write is enough to go on from."""
    made: list[Dying] = []
    plain = world._journal

    def journal(name: str) -> Any:
        found: Any = plain(name)
        if name == "hub":
            world._journals.remove(found)
            made.append(found := Dying(found))
            world._journals.append(found)
        return found

    monkeypatch.setattr(world, "_journal", journal)
    await world.stop_hub()
    await world.start_hub()
    counts: list[int] = []
    for writes in range(1, MOST):
        await until(world.payer.ready.is_set)
        await until(world.onward.ready.is_set)
        made[-1].left = writes
        counts.append(await life(world, made[-1]))
        if not made[-1].dead.is_set() and made[-1].left is not None:
            made[-1].left = None
            break
    assert len(made) > 10, f"the hub died {len(made) - 2} times only"
    assert set(counts) <= {0, 3}
    carried = sum(count == 3 for count in counts)
    assert carried >= len(counts) // 2
    gains = await world.gains()
    assert gains["payee"] == carried * (3 * TICK + REST)
    assert gains["hub"] == carried * 3 * FEE + 5 * len(counts)


async def test_a_promise_that_the_journal_does_not_take_is_never_sent(world: HopWorld) -> None:
    """Rule 7: over another link it would be, and after a restart another would be signed under its nonce."""
    failed: list[JournalError] = []
    world.payer._fail = failed.append

    def refuse(rows: Any, done: Callable[[Exception | None], None]) -> None:
        done(JournalError("the journal cannot be written (no space left)"))

    world.payer_journal.write = refuse  # type: ignore[method-assign]
    world.locked(world.chain())
    await until(lambda: failed)
    await asyncio.sleep(0.5)
    assert not world.payer.ready.is_set(), "it goes on without its journal"
    assert not world.hub.incomings.channels[world.in_params.id].locks
