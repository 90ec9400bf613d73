"""The contract, core and eth-account agree on every id, digest and sum."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_account.messages import encode_typed_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.channel import compact
from penstock.core.errors import BadTerms
from penstock.core.escrow import EscrowParams, MeterReading, deposit_digest, end_digest, tariff_hash
from penstock.core.identity import Address, keccak
from penstock.core.tariff import Step, Tariff
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY, Instant, Quantity
from penstock.ledgers.devnet.execute import Reverted

from ..contracts.world import START
from .words import abi_params, abi_reading, abi_tariff
from .world import TARIFF, World, reading

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(Address)
quantities = st.integers(0, MAX_QUANTITY).map(Quantity)
instants = st.integers(0, MAX_INSTANT).map(Instant)
fixed = st.fixed_dictionaries(
    {
        "payer": addresses,
        "payee": addresses,
        "payer_key": addresses,
        "payee_key": addresses,
        "meter": addresses,
        "deposit": st.integers(0, 2**96 - 1),
        "deadline": st.integers(0, 2**64 - 1),
        "window": st.integers(0, 2**32 - 1),
        "counter": st.integers(0, 2**64 - 1),
    }
)
readings = st.builds(
    MeterReading,
    st.integers(1, 2**63 - 1),
    instants,
    quantities,
    st.one_of(st.just(()), st.lists(quantities, max_size=95).map(tuple)),
    st.booleans(),
)


def _typed(params: EscrowParams, purpose: str, fields: dict[str, str], message: dict[str, Any]) -> bytes:
    domain = {
        "name": "Penstock Escrow",
        "version": "1",
        "chainId": params.domain.chain_id,
        "verifyingContract": "0x" + params.domain.contract.hex(),
    }
    types = {purpose: [{"name": name, "type": kind} for name, kind in {"escrow": "bytes32", **fields}.items()]}
    made = encode_typed_data(domain, types, {"escrow": params.id, **message})
    return keccak(b"\x19" + made.version + made.header + made.body)


def test_the_domain_is_the_same_here_and_there(world: World) -> None:
    assert world.contract.call("domain_separator") == world.domain.separator
    assert bytes.fromhex(world.contract.call("token")[2:]) == world.token.address


@quick
@given(fixed=fixed, tariff=words)
def test_an_id_is_the_same_here_and_there(world: World, fixed: dict[str, Any], tariff: bytes) -> None:
    params = EscrowParams(world.domain, tariff=tariff, **fixed)
    assert world.contract.call("escrow_id", abi_params(params)) == params.id


@pytest.mark.parametrize(
    "field", ["payer", "payee", "payer_key", "payee_key", "meter", "deposit", "deadline", "window"]
)
def test_an_id_commits_to_every_parameter(world: World, field: str) -> None:
    base = world.params(counter=7)
    changed: dict[str, Any] = {field: world.stranger.address if isinstance(getattr(base, field), bytes) else 5}
    others = [world.params(**{"counter": 7, **changed}), world.params(counter=8), world.params(Tariff.flat(1, 1))]
    ids = {world.contract.call("escrow_id", abi_params(params)) for params in (base, *others)}
    assert ids == {params.id for params in (base, *others)}
    assert len(ids) == 4


@quick
@given(made=readings)
def test_a_reading_has_the_digest_of_core_and_of_any_eip_712_library(world: World, made: MeterReading) -> None:
    params = world.params()
    fields = {"sequence": "uint64", "at": "uint64", "total": "uint64", "turns": "uint64[]", "last": "bool"}
    message = {**msgspec.structs.asdict(made), "turns": list(made.turns)}
    there = world.contract.call("reading_digest", abi_params(params), abi_reading(made))
    assert there == made.digest(params) == _typed(params, "Reading", fields, message)


@quick
@given(amount=st.integers(0, 2**96 - 1))
def test_an_end_has_the_digest_of_core_and_of_any_eip_712_library(world: World, amount: int) -> None:
    params = world.params()
    there = world.contract.call("end_digest", abi_params(params), amount)
    assert there == end_digest(params, amount) == _typed(params, "End", {"amount": "uint96"}, {"amount": amount})


@quick
@given(fee=st.integers(0, 50), expiry=st.integers(START, 2**64 - 1))
def test_a_deposit_has_the_digest_that_the_contract_takes(world: World, fee: int, expiry: int) -> None:
    params = world.params(deposit=1)
    message = {"fee": fee, "expiry": expiry}
    assert deposit_digest(params, fee, expiry) == _typed(
        params, "Deposit", {"fee": "uint96", "expiry": "uint64"}, message
    )
    if not world.balance(world.payer):
        world.fund(world.payer, 10**6)
    world.send(world.stranger, "deposit_signed", params, *world.consent(params, fee, expiry))
    assert world.standing(params).exists


@st.composite
def _billed(draw: st.DrawFn) -> tuple[Tariff, MeterReading]:
    """A tariff and a reading that mostly fits it."""
    starts = draw(st.lists(st.integers(1, 40), max_size=6, unique=True).map(sorted))
    amounts = st.one_of(st.integers(1, 9), st.integers(1, 2**96 - 1))
    steps = [Step(Instant(start), draw(amounts)) for start in (0, *starts)]
    tariff = Tariff(draw(st.one_of(st.integers(1, 9), st.integers(1, MAX_QUANTITY))), tuple(steps))
    at = draw(st.integers(0, 45))
    begun = sum(start <= at for start in starts)
    count = draw(st.sampled_from((begun, begun, begun, begun, begun + 1, max(0, begun - 1))))
    totals = st.one_of(st.integers(0, 50), st.integers(0, MAX_QUANTITY))
    turns = draw(st.lists(totals, min_size=count, max_size=count))
    turns = turns if draw(st.integers(0, 9)) == 0 else sorted(turns)
    total = draw(totals) if draw(st.integers(0, 9)) == 0 else max([0, *turns]) + draw(st.integers(0, 50))
    return tariff, reading(min(total, MAX_QUANTITY), at=at, turns=tuple(turns))


@settings(quick, max_examples=150)
@given(billed=_billed(), deposit=st.one_of(st.integers(1, 10**6), st.integers(1, 2**96 - 1)))
def test_a_reading_is_worth_the_same_here_and_there(
    world: World, billed: tuple[Tariff, MeterReading], deposit: int
) -> None:
    tariff, made = billed
    params = world.params(tariff, deposit=deposit)
    args = (abi_params(params), abi_tariff(tariff), abi_reading(made))
    try:
        due = made.due(tariff, deposit)
    except BadTerms:
        with pytest.raises(Reverted, match="escrow: turns"):
            world.contract.call("due", *args)
    else:
        assert world.contract.call("due", *args) == due


def test_a_day_of_quarter_hours_is_billed(world: World) -> None:
    """The longest tariff, the most turns, and the largest numbers in them."""
    steps = tuple(Step(Instant(quarter * 900_000), 2**96 - 1 - quarter) for quarter in range(96))
    tariff = Tariff(2**63 - 1, steps)
    turns = tuple(quarter * (2**63 - 1) // 95 for quarter in range(1, 96))
    made = reading(2**63 - 1, at=2**53 - 1, turns=turns, last=True)
    params = world.make(tariff=tariff, window=0)
    assert 0 < made.due(tariff, 2**96 - 1) < 2**96
    world.file(params, made, tariff=tariff)
    assert world.standing(params)[:2] == (10_000_000, 10_000_000)
    assert world.standing(params).ended


@pytest.mark.parametrize(
    ("made", "tariff", "reason"),
    [
        (reading(1), Tariff.flat(1, 1), "not the deposit's tariff"),
        (reading(1), Tariff(1_000, TARIFF.steps[:1]), "not the deposit's tariff"),
        (reading(1, sequence=0), TARIFF, "reading out of bounds"),
        (reading(1, sequence=2**63), TARIFF, "reading out of bounds"),
        (reading(2**63), TARIFF, "reading out of bounds"),
        (reading(1, at=2**53), TARIFF, "reading out of bounds"),
        (reading(1, turns=(1,)), TARIFF, "turns do not fit the tariff"),
        (reading(1, at=2**53 - 1), TARIFF, "turns do not fit the tariff"),
        (reading(9, at=2**53 - 1, turns=(2, 3)), TARIFF, "turns do not fit the tariff"),
        (reading(9, at=2**53 - 1, turns=(10,)), TARIFF, "turns out of order"),
        (reading(9, at=2**53 - 1, turns=(2**255,)), TARIFF, "turns out of order"),
    ],
)
def test_what_does_not_fit_is_worth_nothing(world: World, made: MeterReading, tariff: Tariff, reason: str) -> None:
    params = world.params()
    with pytest.raises(Reverted, match=f"escrow: {reason}"):
        world.contract.call("due", abi_params(params), abi_tariff(tariff), abi_reading(made))


@pytest.mark.parametrize("tariff", [Tariff(0, (Step(Instant(0), 5),)), Tariff(5, ())])
def test_a_void_tariff_releases_nothing(world: World, tariff: Tariff) -> None:
    params = world.make(tariff=tariff)
    assert params.tariff == tariff_hash(tariff)
    with pytest.raises(Reverted, match=r"escrow: (tariff is void|turns do not fit the tariff)"):
        world.file(params, reading(5, last=True), tariff=tariff)


def test_a_signature_has_one_form(world: World) -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    params, made = world.make(), reading(500)
    r, vs = compact(world.meter.sign(made.digest(params)))
    high = ((vs >> 255) ^ 1) << 255 | (order - (vs & 2**255 - 1))
    for signature in ((r, high & 2**256 - 1), (r, 0), (0, vs), (0, 0)):
        with pytest.raises(Reverted, match="escrow: meter has not signed"):
            world.send(world.payee, "release", params, abi_tariff(TARIFF), abi_reading(made), signature)
