"""A filing's serial keeps marks of ticks apart; where it would wrap, nothing can be filed any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.core.channel import Domain
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, Chainlet, World, compiled, deploy

SOURCE = Path(__file__).parents[2] / "src/penstock/contracts/Channel.vy"


def test_a_payee_that_files_without_end_gets_no_tick_that_was_never_revealed(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The contract itself, but for the width of the serial: 3 bits in place of 24, so that the test is quick."""
    wide, narrow = "UINT24: constant(uint256) = 2**24 - 1", "UINT24: constant(uint256) = 2**3 - 1"
    assert wide in SOURCE.read_text()
    changed = tmp_path / "Channel.vy"
    changed.write_text(SOURCE.read_text().replace(wide, narrow))
    small = deploy(world.chain, world.stranger, compiled(changed), world.token.address)
    monkeypatch.setattr(world, "channel", small)
    monkeypatch.setattr(world, "domain", Domain(world.chain.chain_id, small.address, world.token.address))
    for party in world.parties:
        world.token.send(party, "approve", small.address, 2**256 - 1)
        world.channel.send(party, "deposit", 1_000 * EURO)
    params = world.open(200 * EURO)
    first, second = Chainlet(100, EURO // 100, seed=b"first"), Chainlet(100, EURO, seed=b"second")
    one = world.filing(params, world.partner, 0, [first.lock], [(0, 1, first.preimage(1))], nonce=1)
    two = world.filing(params, world.partner, EURO, [second.lock], nonce=2)
    world.file(world.partner, params, *one, begin=True)  # serial 1: the mark is one tick of the first chain
    for _ in range(2**3 - 2):
        world.file(world.partner, params, *two)
    with pytest.raises(Reverted, match="channel: filed too often"):
        world.file(world.partner, params, *two)
    stolen = world.claims([second.lock], [(0, 100, first.preimage(100))])  # preimages of the first chain
    with pytest.raises(Reverted, match="channel: bad preimage"):
        world.send(world.partner, "prove", params, True, stolen)
