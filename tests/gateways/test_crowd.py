"""Whatever applications and servers do at once, both ends keep to their own rules, agree, and forget."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from penstock.core.units import MAX_QUANTITY, Quantity

from .pipe import Pipe, pipe, until

pytestmark = pytest.mark.asyncio

VISITORS = 120  # more than may be there at once
ROUNDS = 3


class Party:
    """One end of a connection, which does as its dice say: sends, reads, ends, pauses, breaks."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, TimeoutError, RuntimeError):  # uvloop raises the last on a broken connection
            async with asyncio.timeout(2):
                for _ in range(self.dice.randrange(1, 8)):
                    await self.move(reader, writer)
                writer.write_eof()
                while self.dice.random() < 0.9 and await reader.read(100_000):
                    pass
        if self.dice.random() < 0.3:
            writer.transport.abort()
        writer.close()

    async def move(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match self.dice.randrange(5):
            case 0:
                writer.write(bytes(self.dice.randrange(1, 300_000)))
                await writer.drain()
            case 1:
                writer.write(b"x")
            case 2:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.dice.random() / 20):
                        await reader.read(self.dice.randrange(1, 200_000))
            case 3:
                await asyncio.sleep(self.dice.random() / 50)
            case 4 if self.dice.random() < 0.3:
                writer.transport.abort()


async def visit(it: Pipe, seed: int) -> None:
    """An application that comes at some time and does as it likes."""
    party = Party(seed)
    await asyncio.sleep(party.dice.random())
    await party(*await it.application())


async def turn_valve(it: Pipe, seed: int) -> None:
    """A session that lets pass, waits for money, and shuts the valve when it pleases."""
    dice = random.Random(seed)
    while True:
        await asyncio.sleep(dice.random() / 50)
        if dice.random() < 0.3:
            it.supply.close()
        else:
            it.supply.allow(Quantity(it.supply.total + dice.randrange(1, 400_000)))


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_whatever_applications_do_both_ends_agree_and_forget(tmp_path: Path, seed: int) -> None:
    served = iter(range(10**6))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Party(1_000 * seed + 500 + next(served))(reader, writer)

    async with pipe(tmp_path, serve, allowed=0) as it:
        turning = asyncio.ensure_future(turn_valve(it, seed))
        await asyncio.gather(*(visit(it, 1_000 * seed + number) for number in range(VISITORS)))
        turning.cancel()
        it.supply.allow(MAX_QUANTITY)
        gone = "connections stay"
        await until(lambda: not it.supply._connections and not it.meter._connections, gone)
        await until(it.agree, "the meters disagree")
        assert not it.ends, "an end broke the rules of the other"
        assert it.supply.total > 0
