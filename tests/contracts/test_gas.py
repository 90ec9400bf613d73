"""What whole transactions cost under Prague, with balances that are not zero. Run with -s to see the table."""

from __future__ import annotations

import pytest

from .world import EURO, NO_SIGNATURE, Chainlet, World, abi_params, key, send


def _report(name: str, gas: int, limit: int) -> None:
    print(f"  {name:<58} {gas:>8,}")
    assert gas <= limit, f"{name}: {gas} gas is above {limit}"


@pytest.mark.parametrize("two_way", [False, True])
def test_gas_of_opening_and_adding(world: World, two_way: bool) -> None:
    print()
    mark = "two-way" if two_way else "one-way"
    _report(f"open from balance, {mark}", world.send(world.opener, "open", world.params(two_way), 5 * EURO).gas, 54_000)
    params = world.params(two_way)
    _report("open from token, endless allowance", world.send(world.opener, "open_from_token", params, EURO).gas, 72_000)
    world.token.send(world.opener, "approve", world.channel.address, 5 * EURO)
    params = world.params(two_way)
    gas = world.send(world.opener, "open_from_token", params, 5 * EURO).gas
    _report("open from token, exact allowance", gas, 72_000)
    params = world.params(two_way)
    gas = world.send(world.opener, "open_with_permit", params, *world.permit(5 * EURO)).gas
    _report("open with permit", gas, 110_000)
    params = world.params(two_way)
    gas = world.send(world.stranger, "open_with_authorization", params, *world.authorization(params, 5 * EURO)).gas
    _report("open with EIP-3009", gas, 101_000)
    _report("add from balance", world.send(world.opener, "add", params, EURO).gas, 36_000)
    world.token.send(world.opener, "approve", world.channel.address, 2**256 - 1)
    _report("add from token", world.send(world.opener, "add_from_token", params, EURO).gas, 60_000)
    _report("deposit", world.channel.send(world.opener, "deposit", EURO).gas, 60_000)
    _report("withdraw", world.channel.send(world.opener, "withdraw", EURO).gas, 50_000)


def test_gas_of_closing_together(world: World) -> None:
    print()
    params = world.open(10 * EURO)
    gas = world.channel.send(world.stranger, "close_together", world.consent(params, 4 * EURO, 6 * EURO)).gas
    _report("close together, both signatures", gas, 48_000)
    params = world.open(10 * EURO)
    row = (*world.consent(params, 4 * EURO, 6 * EURO)[:5], NO_SIGNATURE)
    _report("close together, sent by the partner", world.channel.send(world.partner, "close_together", row).gas, 44_000)

    rows = [world.consent(world.open(10 * EURO), 4 * EURO, 6 * EURO) for _ in range(50)]
    _report("50 closes, one pair, a row", world.channel.send(world.stranger, "close_many", rows).gas // 50, 15_000)
    rows = [(*world.consent(world.open(10 * EURO), 4 * EURO, 6 * EURO)[:5], NO_SIGNATURE) for _ in range(50)]
    gas = world.channel.send(world.partner, "close_many", rows).gas // 50
    _report("50 closes, one pair, sent by the partner, a row", gas, 12_500)


def test_gas_of_closing_many_openers_channels(world: World) -> None:
    print()
    openers = [key(f"opener {number}") for number in range(50)]
    for opener in openers:
        send(world.chain, world.stranger, opener.address, b"", 10**18)
        world.token.send(world.stranger, "transfer", opener.address, 20 * EURO)
        world.token.send(opener, "approve", world.channel.address, 2**256 - 1)
        world.channel.send(opener, "deposit", 20 * EURO)
    for sender, limit in ((world.stranger, 19_000), (world.partner, 16_000)):
        rows = []
        for opener in openers:
            params = world.params(opener=opener.address)
            world.channel.send(opener, "open", abi_params(params), 10 * EURO)
            rows.append(world.consent(params, 4 * EURO, 6 * EURO))
        if sender is world.partner:
            rows = [(*row[:5], NO_SIGNATURE) for row in rows]
        gas = world.channel.send(sender, "close_many", rows).gas // 50
        name = "the partner" if sender is world.partner else "a stranger"
        _report(f"50 closes, 50 openers, sent by {name}, a row", gas, limit)


def test_gas_of_a_dispute(world: World) -> None:
    print()
    params = world.open(10 * EURO, 5 * EURO)
    closing = world.send(world.partner, "close_and_file", params, *world.filing(params, world.partner, 6 * EURO)).gas
    world.wait(params.period)
    settling = world.send(world.stranger, "settle", params).gas
    _report("close with a voucher", closing, 63_000)
    _report("settle", settling, 42_000)
    _report("close + settle, no locks", closing + settling, 95_000)
    params = world.open(10 * EURO, two_way=False)
    gas = world.send(world.partner, "finish", params, *world.filing(params, world.partner, 6 * EURO)).gas
    _report("finish a one-way channel", gas, 48_000)
    chain = Chainlet(2_000, 1_000)
    params = world.open(10 * EURO, two_way=False)
    claims = [(0, 10, chain.preimage(10))]
    filing = world.filing(params, world.partner, 6 * EURO, [chain.lock], claims)
    _report("finish with ten ticks", world.send(world.partner, "finish", params, *filing).gas, 56_000)
    params = world.open(10 * EURO)
    filing = world.filing(params, world.partner, 6 * EURO, [chain.lock], claims)
    _report(
        "close with a voucher and ten ticks", world.send(world.partner, "close_and_file", params, *filing).gas, 125_000
    )


def test_gas_of_a_tick(world: World) -> None:
    print()
    chain = Chainlet(5_000, 1_000)
    spent = []
    for count in (1_000, 4_000):
        params = world.open(10 * EURO, two_way=False)
        filing = world.filing(params, world.partner, EURO, [chain.lock], [(0, count, chain.preimage(count))])
        spent.append(world.send(world.partner, "finish", params, *filing).gas)
    _report("each tick claimed", (spent[1] - spent[0]) // 3_000, 270)
