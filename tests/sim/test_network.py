"""Links in memory keep the port's promises; a partition holds frames back, and a reset loses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from penstock.core.errors import LinkLost
from penstock.core.identity import Key
from penstock.sim.life import Life, task_of_a_life
from penstock.sim.network import Network, SimLink
from penstock.sim.virtual import VirtualLoop
from penstock.testing.transport import LINK_CHECKS, Pair, PairFactory, Recorder

LEFT, RIGHT = Key(b"\x01" * 32), Key(b"\x02" * 32)


@pytest.mark.parametrize("check", LINK_CHECKS, ids=lambda check: check.__name__)
def test_a_simulated_link_conforms(check: Callable[[PairFactory], Any]) -> None:
    _live(lambda loop: check(lambda: _pair(_network(loop))))


def test_frames_wait_while_the_network_is_cut() -> None:
    async def cut(loop: VirtualLoop) -> None:
        network = _network(loop)
        left, right, *_ = await _pair(network)
        there = Recorder(right)
        network.cut("left", "right")
        left.send(b"one")
        await asyncio.sleep(20)
        assert there.frames == []
        network.heal("left", "right")
        assert await there.count(1) == [b"one"]

    _live(cut)


def test_a_link_that_is_cut_for_long_is_lost_on_both_sides() -> None:
    async def cut(loop: VirtualLoop) -> None:
        network = _network(loop)
        left, right, *_ = await _pair(network)
        here, there = Recorder(left), Recorder(right)
        network.cut("left", "right")
        await asyncio.sleep(41)
        assert [type(end) for end in (*here.ends, *there.ends)] == [LinkLost, LinkLost]

    _live(cut)


def test_a_reset_loses_what_is_on_its_way() -> None:
    async def reset(loop: VirtualLoop) -> None:
        network = _network(loop)
        left, right, *_ = await _pair(network)
        there = Recorder(right)
        left.send(b"lost")
        network.reset("left", "right")
        await there.end()
        assert there.frames == []

    _live(reset)


def _network(loop: VirtualLoop) -> Network:
    return Network(loop, Random(1), lambda: 0.01)


async def _pair(network: Network) -> Pair:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[SimLink] = loop.create_future()
    network.listen("right", Life("right", loop), RIGHT, came.set_result)
    left = await network.dial(Life("left", loop), "left", LEFT, "right")
    return Pair(left, await came, LEFT.address, RIGHT.address)


def _live(work: Callable[[VirtualLoop], Any]) -> None:
    loop = VirtualLoop()
    loop.set_task_factory(task_of_a_life)  # type: ignore[arg-type]  # typeshed's protocol is narrower
    loop.run(work(loop))
