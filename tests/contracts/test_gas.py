"""What whole transactions cost under Prague, with balances that are not zero. Run with -s to see the table.

The limits are what was measured, and a little more: a change that costs gas shows here.
"""

from __future__ import annotations

from .world import EURO, NO_SIGNATURE, Chainlet, World, abi_params, key, send


def _report(name: str, gas: int, limit: int) -> None:
    print(f"  {name:<58} {gas:>8,}")
    assert gas <= limit, f"{name}: {gas} gas is above {limit}"


def test_gas_of_opening_and_adding(world: World) -> None:
    print()
    _report("open from balance", world.send(world.opener, "open", world.params(), 5 * EURO).gas, 55_000)
    _report("open from token", world.send(world.opener, "open_from_token", world.params(), EURO).gas, 74_500)
    world.token.send(world.opener, "approve", world.channel.address, 5 * EURO)
    gas = world.send(world.opener, "open_from_token", world.params(), 5 * EURO).gas
    _report("open from token, allowance used up", gas, 73_000)
    params = world.params()
    gas = world.send(world.opener, "open_with_permit", params, *world.permit(5 * EURO)).gas
    _report("open with permit", gas, 105_500)
    params = world.params()
    gas = world.send(world.stranger, "open_with_authorization", params, *world.authorization(params, 5 * EURO)).gas
    _report("open with EIP-3009", gas, 102_000)
    _report("add from balance", world.send(world.opener, "add", params, EURO).gas, 37_200)
    world.token.send(world.opener, "approve", world.channel.address, 2**256 - 1)
    _report("add from token", world.send(world.opener, "add_from_token", params, EURO).gas, 51_500)
    _report("deposit", world.channel.send(world.opener, "deposit", EURO).gas, 48_000)
    _report("withdraw", world.channel.send(world.opener, "withdraw", EURO).gas, 44_200)


def test_gas_of_closing_together(world: World) -> None:
    print()
    params = world.open(10 * EURO)
    gas = world.channel.send(world.stranger, "close_together", world.consent(params, 4 * EURO, 6 * EURO)).gas
    _report("close together, both signatures", gas, 48_000)
    params = world.open(10 * EURO)
    row = (*world.consent(params, 4 * EURO, 6 * EURO)[:5], NO_SIGNATURE)
    _report("close together, sent by the partner", world.channel.send(world.partner, "close_together", row).gas, 44_000)

    rows = [world.consent(world.open(10 * EURO), 4 * EURO, 6 * EURO) for _ in range(50)]
    _report("50 closes, one pair, a row", world.channel.send(world.stranger, "close_many", rows).gas // 50, 18_400)
    rows = [(*world.consent(world.open(10 * EURO), 4 * EURO, 6 * EURO)[:5], NO_SIGNATURE) for _ in range(50)]
    gas = world.channel.send(world.partner, "close_many", rows).gas // 50
    _report("50 closes, one pair, sent by the partner, a row", gas, 15_000)


def test_gas_of_closing_many_openers_channels(world: World) -> None:
    print()
    openers = [key(f"opener {number}") for number in range(50)]
    for opener in openers:
        send(world.chain, world.stranger, opener.address, b"", 10**18)
        world.token.send(world.stranger, "transfer", opener.address, 20 * EURO)
        world.token.send(opener, "approve", world.channel.address, 2**256 - 1)
        world.channel.send(opener, "deposit", 20 * EURO)
    for sender, limit in ((world.stranger, 22_900), (world.partner, 18_900)):
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
    _report("close with a voucher", closing, 65_500)
    _report("settle", settling, 39_200)
    _report("close + settle, no locks", closing + settling, 104_500)
    params = world.open(10 * EURO, two_way=False)
    gas = world.send(world.partner, "finish", params, *world.filing(params, world.partner, 6 * EURO)).gas
    _report("finish a one-way channel", gas, 45_500)
    chain = Chainlet(2_000, 1_000)
    params = world.open(10 * EURO, two_way=False)
    claims = [(0, 10, chain.preimage(10))]
    filing = world.filing(params, world.partner, 6 * EURO, [chain.lock], claims)
    _report("finish with ten ticks", world.send(world.partner, "finish", params, *filing).gas, 55_500)
    params = world.open(10 * EURO)
    filing = world.filing(params, world.partner, 6 * EURO, [chain.lock], claims)
    _report(
        "close with a voucher and ten ticks", world.send(world.partner, "close_and_file", params, *filing).gas, 122_500
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
