"""What the escrow contract's operations cost: whole transactions under Prague, the crypto euro, a tariff of two steps.

Balances are not zero but where a name says "fresh": that account was never credited before.
"""

from __future__ import annotations

from typing import Any

from penstock.core.escrow import EscrowParams
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant

from ..contracts.world import EURO, key
from .world import HOUR, World, reading

ROWS = 50
DAY_OF_QUARTERS = Tariff(1_000, tuple(Step(Instant(quarter * 900_000), 400_000 + quarter) for quarter in range(96)))


def measure(world: World) -> dict[str, int]:
    """Gas of every operation, by name; of batches, for each row."""
    return {**_deposits(world), **_releases(world), **_waiting(world), **_ends(world)}


def _deposits(world: World) -> dict[str, int]:
    world.make()  # so that the contract's own balance of tokens is not its first
    found = {"deposit_standing_allowance": world.send(world.payer, "deposit", world.params()).gas}
    world.token.send(world.payer, "approve", world.contract.address, 10 * EURO)
    found["deposit"] = world.send(world.payer, "deposit", world.params()).gas
    params = world.params()
    found["deposit_with_permit"] = world.send(
        world.payer, "deposit_with_permit", params, *world.permit(params.deposit)
    ).gas
    world.token.send(world.payer, "approve", world.contract.address, 2**256 - 1)
    for name, fee in (("", 0), ("_with_fee_fresh", EURO), ("_with_fee", EURO)):
        params = world.params()
        gas = world.send(world.stranger, "deposit_with_authorization", params, *world.authorization(params, fee)).gas
        found[f"deposit_by_authorization_eip3009{name}"] = gas
    return found


def _releases(world: World) -> dict[str, int]:
    found, last, newcomer = {}, reading(5_000, last=True), key("newcomer")
    world.token.send(world.stranger, "mint", [newcomer.address], 10 * EURO)
    payers: tuple[tuple[str, dict[str, Any]], ...] = (
        ("final_release_both_fresh", {}),
        ("final_release_payer_fresh", {"payer": newcomer.address}),
        ("final_release", {}),
    )
    for name, fixed in payers:
        params = world.params(window=0, **fixed)
        if not fixed:
            world.send(world.payer, "deposit", params)
        else:
            more = world.authorization(params, payer=newcomer)
            world.send(world.stranger, "deposit_with_authorization", params, *more)
        found[name] = world.file(params, last).gas
    params = world.make(window=0)
    found["release_paid_at_once"] = world.file(params, reading(1_000)).gas
    params = world.make(window=0, tariff=DAY_OF_QUARTERS)
    turns = tuple(range(10, 960, 10))
    made = reading(5_000, at=96 * 900_000, turns=turns, last=True)
    found["final_release_of_96_steps"] = world.file(params, made, tariff=DAY_OF_QUARTERS).gas
    return found


def _waiting(world: World) -> dict[str, int]:
    params, contested = world.make(), world.make()
    found = {
        "release_with_a_window": world.file(params, reading(1_000)).gas,
        "final_release_with_a_window": world.file(params, reading(5_000, 2, last=True)).gas,
    }
    world.file(contested, reading(5_000))
    found["contest"] = world.contest(contested, reading(5_000), reading(4_000, 2)).gas
    world.wait(HOUR)
    found["settle"] = world.send(world.stranger, "settle", params).gas
    return found


def _ends(world: World) -> dict[str, int]:
    world.fund(world.payer, 10 * EURO)
    found = {"deposit_from_balance": world.send(world.payer, "deposit_from_balance", world.params()).gas}
    world.fund(world.payer, 11 * EURO)
    params = world.params()
    found["deposit_signed_with_fee"] = world.send(
        world.stranger, "deposit_signed", params, *world.consent(params, EURO)
    ).gas
    found["withdraw"] = world.contract.send(world.payee, "withdraw", EURO).gas
    found["end"] = world.end(world.make(), 4 * EURO).gas
    for name in ("end_50_each_payers_fresh", "end_50_each"):
        rows = [world.row(params, 4 * EURO) for params in _one_of_each_payer(world)]
        found[name] = world.contract.send(world.payee, "end_many", rows).gas // ROWS
    rows = [world.row(world.make(), 4 * EURO) for _ in range(ROWS)]
    found["end_50_each_one_pair"] = world.contract.send(world.payee, "end_many", rows).gas // ROWS
    return found


def _one_of_each_payer(world: World) -> list[EscrowParams]:
    """An escrow of each of fifty payers, who own no ether, to the payee."""
    payers = [key(f"payer {number}") for number in range(ROWS)]
    world.token.send(world.stranger, "mint", [payer.address for payer in payers], 10 * EURO)
    made = []
    for payer in payers:
        params = world.params(payer=payer.address)
        more = world.authorization(params, payer=payer)
        world.send(world.stranger, "deposit_with_authorization", params, *more)
        made.append(params)
    return made
