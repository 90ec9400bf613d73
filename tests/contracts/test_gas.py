"""What whole transactions cost under Prague, with balances that are not zero. Run with -s to see the table.

The limits are what was measured, and a little more: a change that costs gas shows here.
"""

from __future__ import annotations

from penstock.core.channel import APART, Close, Voucher

from .world import EURO, NO_SIGNATURE, START, Chainlet, World, abi_place

FOREVER = START + 10**6


def _report(name: str, gas: int, limit: int) -> None:
    print(f"  {name:<58} {gas:>8,}")
    assert gas <= limit, f"{name}: {gas} gas is above {limit}"


def test_gas_of_opening_and_adding(world: World) -> None:
    print()
    plain = world.plain
    gas = world.channel.send(world.opener, "open", *abi_place(world.params(**plain), 5 * EURO)).gas
    _report("open from balance", gas, 55_000)
    gas = world.channel.send(world.opener, "open_with_keys", *world.opening(world.params(), 5 * EURO)).gas
    _report("open from balance, other keys", gas, 55_000)
    apart = world.params(counter=APART + 1, **plain)
    gas = world.channel.send(world.opener, "open_from_token", *abi_place(apart, EURO)).gas
    _report("open from token", gas, 74_500)
    world.token.send(world.opener, "approve", world.channel.address, 5 * EURO)
    apart = world.params(counter=APART + 2, **plain)
    gas = world.channel.send(world.opener, "open_from_token", *abi_place(apart, 5 * EURO)).gas
    _report("open from token, allowance used up", gas, 73_000)
    apart = world.params(counter=APART + 3, **plain)
    gas = world.channel.send(
        world.opener, "open_with_permit", *world.opening(apart, 5 * EURO), *world.permit(5 * EURO)
    ).gas
    _report("open with permit", gas, 105_500)
    apart = world.params(counter=APART + 4, **plain)
    gas = world.send(world.stranger, "open_with_authorization", apart, *world.authorization(apart, 5 * EURO)).gas
    _report("open with EIP-3009", gas, 102_000)
    _report("add from balance", world.send(world.opener, "add", apart, EURO).gas, 37_200)
    world.token.send(world.opener, "approve", world.channel.address, 2**256 - 1)
    _report("add from token", world.send(world.opener, "add_from_token", apart, EURO).gas, 51_500)
    _report("deposit", world.channel.send(world.opener, "deposit", EURO).gas, 48_000)
    _report("withdraw", world.channel.send(world.opener, "withdraw", EURO).gas, 44_200)


def test_gas_of_closing_together(world: World) -> None:
    print()
    params = world.open(10 * EURO, **world.plain)
    gas = world.channel.send(world.stranger, "close_together", world.consent(params, 4 * EURO, 6 * EURO)).gas
    _report("close together, both signatures", gas, 48_000)
    params = world.open(10 * EURO, **world.plain)
    row = (*world.consent(params, 4 * EURO, 6 * EURO)[:3], NO_SIGNATURE)
    _report("close together, sent by the partner", world.channel.send(world.partner, "close_together", row).gas, 44_000)
    rows = [world.consent(world.open(10 * EURO, **world.plain), 4 * EURO, 6 * EURO) for _ in range(50)]
    _report("50 closes, one pair, a row", world.channel.send(world.stranger, "close_many", rows).gas // 50, 18_400)
    opened = [world.open(10 * EURO, two_way=False, **world.plain) for _ in range(50)]
    rows = world.rows([(params, Close(4 * EURO, 6 * EURO, FOREVER)) for params in opened])
    gas = world.channel.send(world.partner, "close_mine", 0, rows).gas // 50
    _report("50 closes, one pair, sent by the partner, a row", gas, 15_000)


def test_gas_of_fifty_openers_channels(world: World) -> None:
    print()
    openers = world.many(50, 60 * EURO)
    for name, base, spent in (
        ("50 closes, 50 openers", 0, 6),
        ("50 closes, 50 openers, spent", 0, 10),
        ("50 closes, 50 openers, apart", APART, 6),
        ("50 closes, 50 openers, apart, spent", APART, 10),
    ):
        opened = []
        for opener in openers:
            world._counter += 1
            params = world.params(
                opener=opener.address,
                opener_key=opener.address,
                partner_key=world.partner.address,
                counter=base + world._counter,
            )
            world.channel.send(opener, "open_with_keys", *world.opening(params, 10 * EURO))
            opened.append(params)
        rows = world.rows([(params, Close((10 - spent) * EURO, spent * EURO, FOREVER)) for params in opened])
        if (base, spent) == (0, 6):
            claims = world.rows([(params, Voucher.over(7, 3 * EURO)) for params in opened])
            gas = world.channel.send(world.partner, "claim_many", 0, claims).gas // 50
            _report("50 claims, 50 openers", gas, 18_000)
        gas = world.channel.send(world.partner, "close_mine", 0, rows).gas // 50
        _report(name, gas, 20_000)


def test_gas_of_a_dispute(world: World) -> None:
    print()
    for two_way in (True, False):
        params = world.open(10 * EURO, 5 * EURO if two_way else 0, two_way=two_way, **world.plain)
        filing = world.filing(params, world.partner, 6 * EURO)
        closing = world.file(world.partner, params, *filing, begin=True).gas
        world.wait(params.period)
        settling = world.send(world.stranger, "settle", params).gas
        _report(f"close with a voucher, two-way: {two_way}", closing, 65_500)
        _report("settle", settling, 41_200)
        _report("close + settle, no locks", closing + settling, 104_500)
    params = world.open(10 * EURO, two_way=False, **world.plain)
    gas = world.send(world.partner, "finish", params, *world.filing(params, world.partner, 6 * EURO)).gas
    _report("finish a one-way channel", gas, 45_500)
    chain = Chainlet(2_000, 1_000)
    params = world.open(10 * EURO, two_way=False, **world.plain)
    claims = [(0, 10, chain.preimage(10))]
    filing = world.filing(params, world.partner, 6 * EURO, [chain.lock], claims)
    _report("finish with ten ticks", world.send(world.partner, "finish", params, *filing).gas, 55_500)
    params = world.open(10 * EURO, **world.plain)
    filing = world.filing(params, world.partner, 6 * EURO, [chain.lock], claims)
    _report("close with a voucher and ten ticks", world.file(world.partner, params, *filing, begin=True).gas, 145_500)


def test_gas_of_a_tick(world: World) -> None:
    print()
    chain = Chainlet(5_000, 1_000)
    spent = []
    for count in (1_000, 4_000):
        params = world.open(10 * EURO, two_way=False)
        filing = world.filing(params, world.partner, EURO, [chain.lock], [(0, count, chain.preimage(count))])
        spent.append(world.send(world.partner, "finish", params, *filing).gas)
    _report("each tick claimed", (spent[1] - spent[0]) // 3_000, 270)
