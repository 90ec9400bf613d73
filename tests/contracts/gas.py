"""What the contract's operations cost: whole transactions under Prague, balances that are not zero, the crypto euro.

Voucher keys are the accounts, as nodes choose them. "Openers" are fifty accounts with a channel each to one partner.
"""

from __future__ import annotations

from penstock.core.channel import APART, ChannelParams, Close, Voucher
from penstock.core.identity import Key
from penstock.core.ports import Filing
from penstock.ledgers import forms

from .world import EURO, NO_SIGNATURE, START, Chainlet, World, abi_place

FOREVER = START + 10**6
ROWS = 50
HOPS = 500


def measure(world: World) -> dict[str, int]:
    """Gas of every operation, by name; of batches and ticks, for each."""
    figures = {**_openings(world), **_additions(world), **_closes(world), **_batches(world), **_disputes(world)}
    return {**figures, **_ticks(world), **_hops(world)}


def _openings(world: World) -> dict[str, int]:
    plain, stranger = world.plain, world.stranger
    found = {
        "open_from_balance": world.channel.send(world.opener, "open", *abi_place(world.params(**plain), 5 * EURO)).gas,
        "open_from_balance_other_keys": world.open_by(world.opener, "open_with_keys", world.params(), 5 * EURO).gas,
    }
    apart = [world.params(counter=APART + number, **plain) for number in range(5)]
    opened = world.channel.send(world.opener, "open_from_token", *abi_place(apart[0], 5 * EURO))
    found["open_from_token_standing_allowance"] = opened.gas
    world.token.send(world.opener, "approve", world.channel.address, 5 * EURO)
    found["open_from_token"] = world.channel.send(world.opener, "open_from_token", *abi_place(apart[1], 5 * EURO)).gas
    found["open_with_permit"] = world.open_by(
        world.opener, "open_with_permit", apart[2], 5 * EURO, *world.permit(5 * EURO)
    ).gas
    for name, params, fee in (
        ("open_by_signature_eip3009", apart[3], 0),
        ("open_by_signature_eip3009_with_fee", apart[4], EURO),
    ):
        arguments = world.authorization(params, 5 * EURO, fee=fee)
        found[name] = world.send(stranger, "open_with_authorization", params, *arguments).gas
    world.token.send(world.opener, "approve", world.channel.address, 2**256 - 1)
    return found


def _additions(world: World) -> dict[str, int]:
    params = world.open(5 * EURO, **world.plain)
    return {
        "add_from_balance": world.send(world.opener, "add", params, EURO).gas,
        "add_from_token": world.send(world.opener, "add_from_token", params, EURO).gas,
        "deposit": world.channel.send(world.opener, "deposit", EURO).gas,
        "withdraw": world.channel.send(world.opener, "withdraw", EURO).gas,
    }


def _closes(world: World) -> dict[str, int]:
    params = world.open(10 * EURO, **world.plain)
    both = world.channel.send(world.stranger, "close_together", world.consent(params, 4 * EURO, 6 * EURO)).gas
    params = world.open(10 * EURO, **world.plain)
    row = (*world.consent(params, 4 * EURO, 6 * EURO)[:3], NO_SIGNATURE)
    mine = world.channel.send(world.partner, "close_together", row).gas
    return {"cooperative_close": both, "cooperative_close_by_the_partner": mine}


def _batches(world: World) -> dict[str, int]:
    openers = world.many(ROWS, 80 * EURO)
    opened = {name: _open_all(world, openers, base) for name, base in (("rest", 0), ("spent", 0), ("apart", APART))}
    claims = world.rows([(params, Voucher.over(7, 3 * EURO)) for params in opened["rest"]])
    found = {"claim_50_each": world.channel.send(world.partner, "claim_many", 0, claims).gas // ROWS}
    pair = [world.open(10 * EURO, two_way=False, **world.plain) for _ in range(ROWS)]
    for name, channels, spent in (
        ("cooperative_close_50_each", opened["rest"], 6),
        ("cooperative_close_50_each_spent", opened["spent"], 10),
        ("cooperative_close_50_each_counter_apart_spent", opened["apart"], 10),
        ("cooperative_close_50_each_one_pair", pair, 6),
    ):
        rows = world.rows([(params, Close((10 - spent) * EURO, spent * EURO, FOREVER)) for params in channels])
        found[name] = world.channel.send(world.partner, "close_mine", 0, rows).gas // ROWS
    return found


def _open_all(world: World, openers: list[Key], base: int) -> list[ChannelParams]:
    """A channel of each opener to the partner, from its balance."""
    opened = []
    for opener in openers:
        world._counter += 1
        keys = {"opener": opener.address, "opener_key": opener.address, "partner_key": world.partner.address}
        params = world.params(counter=base + world._counter, **keys)
        world.open_by(opener, "open_with_keys", params, 10 * EURO)
        opened.append(params)
    return opened


def _disputes(world: World) -> dict[str, int]:
    found = {}
    for name, two_way in (("close_and_settle", False), ("close_and_settle_two_way", True)):
        params = world.open(10 * EURO, 5 * EURO if two_way else 0, two_way=two_way, **world.plain)
        filing = world.filing(params, world.partner, 6 * EURO)
        closing = world.file(world.partner, params, *filing, begin=True).gas
        world.wait(params.period)
        found[name] = closing + world.send(world.stranger, "settle", params).gas
    params = world.open(10 * EURO, two_way=False, **world.plain)
    found["finish_one_way"] = world.send(
        world.partner, "finish", params, *world.filing(params, world.partner, 6 * EURO)
    ).gas
    return found


def _ticks(world: World) -> dict[str, int]:
    chain, spent = Chainlet(5_000, 1_000), []
    for count in (1_000, 4_000):
        params = world.open(10 * EURO, two_way=False)
        filing = world.filing(params, world.partner, EURO, [chain.lock], [(0, count, chain.preimage(count))])
        spent.append(world.send(world.partner, "finish", params, *filing).gas)
    return {"tick_claim_each": (spent[1] - spent[0]) // 3_000}


def _hops(world: World) -> dict[str, int]:
    """A hub's voucher over five hundred hop locks, and one tick of each, which costs its walk too."""
    chains = [Chainlet(10, 1_000, expiry=START + 10**6, seed=b"hop %d" % number) for number in range(HOPS)]
    locks = [chain.lock for chain in chains]
    proofs = tuple((1, chain.preimage(1)) for chain in chains)
    [wave] = forms.proof_waves(Filing(Voucher.over(1, EURO, locks), b"", tuple(locks), proofs))
    first, *rest = [forms.joined(part) for part in forms.in_transactions(wave)]
    params = world.open(10 * EURO, two_way=False, **world.plain)
    spent = world.file(world.partner, params, *world.filing(params, world.partner, EURO, locks)[:2], first, begin=True)
    proving = [world.send(world.partner, "prove", params, True, words).gas for words in rest]
    return {"hop_lock_claim_500_each": (spent.gas + sum(proving)) // HOPS}
