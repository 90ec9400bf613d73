"""Ways into an escrow: whose money, what is refused, and tokens that do not behave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.core.escrow import MAX_LIFE, MAX_WINDOW, EscrowParams, deposit_digest
from penstock.core.identity import Address, Key, keccak
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.execute import Reverted

from ..contracts import world as channels
from ..contracts.world import ETHER, EURO, START, Contract, compiled, deploy
from .words import abi_params
from .world import FOREVER, World, reading

TOKENS = Path(channels.__file__).parent / "tokens"
WALLET = Path(channels.__file__).parent / "wallets" / "Wallet.vy"
RETURNS_FALSE, TAKES_A_FEE, CALLS_BACK = 1, 2, 3
ALL = 2**96 - 1
WAYS = ("deposit", "deposit_from_balance", "deposit_with_permit", "deposit_with_authorization", "deposit_signed")


def _deposit(world: World, way: str, params: EscrowParams, sender: Key | None = None) -> None:
    """Make a deposit, having what it takes."""
    more: tuple[Any, ...] = ()
    if way in ("deposit_from_balance", "deposit_signed"):
        world.fund(world.payer, params.deposit)
    if way == "deposit_with_permit":
        more = world.permit(params.deposit)
    elif way == "deposit_with_authorization":
        more = world.authorization(params)
    elif way == "deposit_signed":
        more = world.consent(params)
    world.send(sender or world.payer, way, params, *more)


@pytest.mark.parametrize("way", WAYS)
def test_a_deposit_is_taken_once(world: World, way: str) -> None:
    params = world.params()
    _deposit(world, way, params)
    assert world.standing(params) == (0, 0, 0, True, False, False, False)
    assert world.wallet(world.contract.address) == params.deposit
    with pytest.raises(Reverted, match=r"escrow: escrow was used|token: authorization used"):
        _deposit(world, way, params)
    world.end(params, 3 * EURO)
    with pytest.raises(Reverted, match=r"escrow: escrow was used|token: authorization used"):
        _deposit(world, way, params)


@pytest.mark.parametrize("way", WAYS[:3])
def test_nobody_makes_a_deposit_for_somebody_else(world: World, way: str) -> None:
    with pytest.raises(Reverted, match="escrow: not the payer"):
        _deposit(world, way, world.params(), sender=world.stranger)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"payee": bytes(20)}, "no address"),
        ({"payer_key": bytes(20)}, "no address"),
        ({"payee_key": bytes(20)}, "no address"),
        ({"meter": bytes(20)}, "no address"),
        ({"payee": "payer"}, "both parties are the same"),
        ({"payee_key": "payer_key"}, "both keys are the same"),
        ({"meter": "payer_key"}, "the payer's own meter"),
        ({"deposit": 0}, "nothing deposited"),
        ({"window": MAX_WINDOW + 1}, "window too long"),
        ({"deadline": START}, "deadline has passed"),
        ({"deadline": START + MAX_LIFE + 1}, "deadline too far"),
        ({"deadline": 2**64 - 1}, "deadline too far"),
    ],
)
def test_an_escrow_that_cannot_be_is_refused(world: World, way: str, wrong: dict[str, Any], reason: str) -> None:
    fixed = {name: getattr(world, value).address if isinstance(value, str) else value for name, value in wrong.items()}
    params = world.params(**fixed)
    more = {
        "deposit_with_permit": (FOREVER, (0, 0)),
        "deposit_with_authorization": (0, 0, FOREVER, (0, 0)),
        "deposit_signed": (0, FOREVER, b""),
    }.get(way, ())
    with pytest.raises(Reverted, match=f"escrow: {reason}"):
        world.send(world.payer, way, params, *more)


def test_words_that_are_no_addresses_are_refused(world: World) -> None:
    words = abi_params(world.params())
    for at in range(5):
        changed = (*words[:at], words[at] | 1 << 160, *words[at + 1 :])
        with pytest.raises(Reverted, match="escrow: no address"):
            world.contract.send(world.payer, "deposit", changed)


def test_the_longest_window_and_life_are_taken(world: World) -> None:
    params = world.make(window=MAX_WINDOW, deadline=START + MAX_LIFE)
    assert world.standing(params).exists


def test_a_payer_without_ether_deposits_and_pays_the_sender_in_the_token(world: World) -> None:
    poor = Key(keccak(b"a payer without ether"))
    world.token.send(world.stranger, "mint", [poor.address], 20 * EURO)
    params = world.params(payer=poor.address)
    more = world.authorization(params, fee=EURO, payer=poor)
    world.send(world.stranger, "deposit_with_authorization", params, *more)
    assert world.standing(params).exists
    assert (world.balance(world.stranger), world.wallet(poor)) == (EURO, 9 * EURO)


@pytest.mark.parametrize("change", ["fee", "deposit", "counter", "meter", "window"])
def test_an_authorization_commits_to_fee_and_escrow(world: World, change: str) -> None:
    params = world.params(counter=77)
    fee, *more = world.authorization(params, fee=EURO)
    changed: dict[str, Any] = {"deposit": 9 * EURO, "counter": 78, "meter": world.stranger.address, "window": 0}
    other = world.params(**{"counter": 77, **({change: changed[change]} if change != "fee" else {})})
    with pytest.raises(Reverted, match="token: bad signature"):
        world.send(world.stranger, "deposit_with_authorization", other, fee + (change == "fee"), *more)
    world.send(world.stranger, "deposit_with_authorization", params, fee, *more)


@pytest.mark.parametrize("change", ["fee", "expiry", "escrow", "signer", "length"])
def test_a_signed_deposit_is_sent_exactly_as_it_was_signed(world: World, change: str) -> None:
    params = world.params()
    world.fund(world.payer, 11 * EURO)
    fee, expiry, signature = world.consent(params, fee=7)
    if change == "signer":
        signature = world.consent(params, fee=7, signer=world.payer_key)[2]
    elif change == "length":
        signature += b"\0"
    other = world.params() if change == "escrow" else params
    with pytest.raises(Reverted, match="escrow: account has not signed"):
        world.send(
            world.stranger, "deposit_signed", other, fee + (change == "fee"), expiry + (change == "expiry"), signature
        )
    if change == "fee":
        world.send(world.stranger, "deposit_signed", params, fee, expiry, signature)
        assert (world.balance(world.payer), world.balance(world.stranger)) == (EURO - 7, 7)


def test_a_signed_deposit_expires_and_needs_the_balance(world: World) -> None:
    params = world.params()
    world.fund(world.payer, params.deposit)
    with pytest.raises(Reverted, match="escrow: balance too low"):
        world.send(world.stranger, "deposit_signed", params, *world.consent(params, fee=1))
    more = world.consent(params, expiry=START + 5)
    world.wait(6)
    with pytest.raises(Reverted, match="escrow: signature expired"):
        world.send(world.stranger, "deposit_signed", params, *more)


@pytest.mark.parametrize("way", ["deposit_with_authorization", "deposit_signed"])
def test_a_fee_cannot_overflow(world: World, way: str) -> None:
    for fee in (2**96, 2**256 - 1):
        more = world.consent(world.params(), fee) if way == "deposit_signed" else (fee, 0, FOREVER, (0, 0))
        with pytest.raises(Reverted, match="escrow: fee too large"):
            world.send(world.stranger, way, world.params(), *more)


def test_a_contract_wallet_pays_and_is_paid(world: World) -> None:
    """EIP-1271 for its deposits. What it is paid is a balance, for which nothing of its own is called."""
    wallet = deploy(world.chain, world.stranger, compiled(WALLET), world.payer.address)
    back = world.params(payee=wallet.address, window=0)
    world.send(world.payer, "deposit", back)
    world.file(back, reading(10**6, last=True), sender=world.stranger)
    assert world.balance(wallet.address) == 10 * EURO
    params = world.params(payer=wallet.address, deposit=4 * EURO)
    for bad in (world.consent(params)[2], world.payee.sign(params.digest(bytes(32))), b"", bytes(1_024)):
        with pytest.raises(Reverted, match="escrow: account has not signed"):
            world.send(world.stranger, "deposit_signed", params, 0, FOREVER, bad)
    world.send(
        world.stranger, "deposit_signed", params, 0, FOREVER, world.payer.sign(deposit_digest(params, 0, FOREVER))
    )
    assert world.standing(params).exists
    call = world.contract.calldata("withdraw", (6 * EURO,))
    wallet.send(world.stranger, "run", world.contract.address, call)
    assert world.wallet(wallet.address) == 6 * EURO


def test_who_lost_its_records_finds_all_parameters_in_the_log(world: World) -> None:
    params = world.params()
    receipt = world.send(world.payer, "deposit", params)
    (event,) = world.contract.events(receipt, "Deposited")
    assert event["escrow"] == params.id
    assert (event["tariff"], event["terms"]) == (params.tariff, params.terms)
    for name in ("payer", "payee", "payer_key", "payee_key", "meter"):
        assert Address(bytes.fromhex(event[name][2:])) == getattr(params, name)


# Tokens


@pytest.fixture
def odd(world: World) -> World:
    """The world with an escrow contract over a token that does as it is told. The payer has all of it there is."""
    token = deploy(world.chain, world.stranger, compiled(TOKENS / "OddToken.vy"))
    world.serve(token, deploy(world.chain, world.stranger, load("Escrow"), token.address))
    token.send(world.stranger, "mint", [world.payer.address], ALL)
    return world


@pytest.mark.parametrize(("manner", "reason"), [(RETURNS_FALSE, "token refused"), (TAKES_A_FEE, "token took a fee")])
def test_a_token_that_gives_less_gives_nothing(odd: World, manner: int, reason: str) -> None:
    odd.token.send(odd.stranger, "behave", manner, odd.token.address, b"")
    for way, more in (("deposit", ()), ("deposit_with_permit", (FOREVER, (0, 0)))):
        params = odd.params()
        with pytest.raises(Reverted, match=f"escrow: {reason}"):
            odd.send(odd.payer, way, params, *more)
        assert not odd.standing(params).exists


def test_a_token_that_refuses_a_withdrawal_takes_no_balance(odd: World) -> None:
    odd.end(odd.make(), 4 * EURO)
    odd.token.send(odd.stranger, "behave", RETURNS_FALSE, odd.token.address, b"")
    with pytest.raises(Reverted, match="escrow: token refused"):
        odd.contract.send(odd.payee, "withdraw", EURO)
    assert odd.balance(odd.payee) == 4 * EURO


@pytest.mark.parametrize("within", ["deposit", "withdraw", "deposit_with_permit"])
@pytest.mark.parametrize("around", ["deposit", "deposit_with_permit"])
def test_a_token_that_calls_back_enters_nowhere(odd: World, within: str, around: str) -> None:
    more: dict[str, tuple[Any, ...]] = {"deposit_with_permit": (FOREVER, (0, 0))}
    inside = (0,) if within == "withdraw" else (abi_params(odd.params(payer=odd.token.address)), *more.get(within, ()))
    odd.token.send(odd.stranger, "behave", CALLS_BACK, odd.contract.address, odd.contract.calldata(within, inside))
    params = odd.params()
    odd.send(odd.payer, around, params, *more.get(around, ()))
    assert odd.token.call("allowed") is False
    assert odd.standing(params).exists
    assert odd.wallet(odd.contract.address) == params.deposit


def test_a_token_that_calls_back_makes_no_deposit_twice(odd: World) -> None:
    """The same escrow, made from the balance in the middle of its deposit from the wallet: one of the two falls."""
    held = odd.params(payee=odd.token.address)
    odd.send(odd.payer, "deposit", held)
    odd.end(held, held.deposit)
    params = odd.params(payer=odd.token.address)
    odd.token.send(odd.stranger, "mint", [odd.token.address], params.deposit)
    inner = odd.contract.calldata("deposit_from_balance", (abi_params(params),))
    odd.token.send(odd.stranger, "behave", CALLS_BACK, odd.contract.address, inner)
    with pytest.raises(Reverted, match="escrow: escrow was used"):
        odd.token.send(
            odd.stranger, "enter", odd.contract.address, odd.contract.calldata("deposit", (abi_params(params),))
        )
    assert not odd.standing(params).exists
    assert odd.balance(odd.token.address) == held.deposit


def test_more_tokens_than_a_balance_holds_are_refused(odd: World) -> None:
    params = odd.params(deposit=ALL)
    odd.send(odd.payer, "deposit", params)
    odd.token.send(odd.stranger, "mint", [odd.payer.address], 5)
    with pytest.raises(Reverted, match="escrow: too many tokens"):
        odd.make(deposit=1)
    odd.end(params, ALL - 3)
    assert odd.balances() == (3, ALL - 3)


def test_a_token_that_returns_nothing_is_served(world: World) -> None:
    token = deploy(world.chain, world.stranger, compiled(TOKENS / "SilentToken.vy"))
    world.serve(token, deploy(world.chain, world.stranger, load("Escrow"), token.address))
    token.send(world.stranger, "mint", [world.payer.address], 20 * EURO)
    world.end(world.make(), 4 * EURO)
    world.contract.send(world.payee, "withdraw", 4 * EURO)
    assert world.wallet(world.payee) == 4 * EURO


def test_wrapped_ether_is_served_but_authorizes_nothing(world: World) -> None:
    """Its fallback takes any call for granted: what counts is what arrives."""
    ether: Contract = deploy(world.chain, world.stranger, load("WrappedEther"))
    world.serve(ether, deploy(world.chain, world.stranger, load("Escrow"), ether.address))
    ether.send(world.payer, "deposit", value=ETHER)
    ether.send(world.payer, "approve", world.contract.address, 10 * EURO)
    params = world.params()
    with pytest.raises(Reverted):
        world.send(world.stranger, "deposit_with_authorization", params, 0, 0, FOREVER, (0, 0))
    assert not world.standing(params).exists
    world.send(world.payer, "deposit", params)
    assert world.wallet(world.contract.address) == 10 * EURO


def test_a_contract_serves_no_account_without_code(world: World) -> None:
    with pytest.raises(Reverted, match="escrow: token is no contract"):
        deploy(world.chain, world.stranger, load("Escrow"), world.payer.address)


def test_a_withdrawal_takes_no_more_than_the_balance(world: World) -> None:
    world.fund(world.payee, 5)
    with pytest.raises(Reverted, match="escrow: balance too low"):
        world.contract.send(world.payee, "withdraw", 6)
    world.contract.send(world.payee, "withdraw", 5)
    assert world.wallet(world.contract.address) == 0
