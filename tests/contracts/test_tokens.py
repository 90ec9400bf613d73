"""The two test tokens: the crypto euro's permits and authorizations, and wrapped ether."""

from __future__ import annotations

import pytest
from eth_account.messages import encode_typed_data

from penstock.core.identity import Digest, keccak
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.execute import Reverted

from .world import ETHER, EURO, START, Contract, World, deploy, send, split

AUTHORIZATION = {
    "from": "address",
    "to": "address",
    "value": "uint256",
    "validAfter": "uint256",
    "validBefore": "uint256",
    "nonce": "bytes32",
}
PERMIT = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256", "deadline": "uint256"}
ALWAYS = 2**63


def _signed(world: World, purpose: str, fields: dict[str, str], values: tuple[object, ...]) -> tuple[int, bytes, bytes]:
    """(v, r, s) by the opener over what eth-account makes of the token's own name and version."""
    domain = {
        "name": world.token.call("name"),
        "version": world.token.call("version"),
        "chainId": world.chain.chain_id,
        "verifyingContract": "0x" + world.token.address.hex(),
    }
    shown = ["0x" + v.hex() if kind == "address" else v for v, kind in zip(values, fields.values(), strict=True)]  # type: ignore[attr-defined]  # an address is bytes here
    types = {purpose: [{"name": name, "type": kind} for name, kind in fields.items()]}
    signable = encode_typed_data(domain, types, dict(zip(fields, shown, strict=True)))
    digest = Digest(keccak(b"\x19" + signable.version + signable.header + signable.body))
    v, r, s = split(world.opener.sign(digest))
    return v, r, s


def test_the_euro_says_what_it_is(world: World) -> None:
    names = ("name", "symbol", "decimals", "version")
    assert [world.token.call(name) for name in names] == ["Crypto Euro", "cEUR", 6, "1"]
    assert world.token.call("totalSupply") == 30_000 * EURO


def test_only_who_deployed_the_euro_mints(world: World) -> None:
    with pytest.raises(Reverted, match="token: not the minter"):
        world.token.send(world.opener, "mint", [world.opener.address], 1)
    many = [keccak(b"%d" % n)[:20] for n in range(512)]
    supply = world.token.call("totalSupply")
    receipt = world.token.send(world.stranger, "mint", many, 3)
    assert world.token.call("totalSupply") == supply + 3 * 512
    assert len(world.token.events(receipt, "Transfer")) == 512
    assert world.token.call("balanceOf", many[511]) == 3


def test_a_permit_sets_the_allowance_once(world: World) -> None:
    values = (world.opener.address, world.partner.address, 5, 0, START)
    signature = _signed(world, "Permit", PERMIT, values)
    call = (world.opener.address, world.partner.address, 5, START, *signature)
    world.token.send(world.stranger, "permit", *call)
    assert world.token.call("allowance", world.opener.address, world.partner.address) == 5
    with pytest.raises(Reverted, match="token: bad signature"):
        world.token.send(world.stranger, "permit", *call)
    world.wait(1)
    with pytest.raises(Reverted, match="token: permit expired"):
        world.token.send(world.stranger, "permit", *call)


def test_a_transfer_by_authorization_works_once_and_in_its_time(world: World) -> None:
    nonce, before = keccak(b"nonce"), world.wallet(world.partner)
    values = (world.opener.address, world.partner.address, 5, START, START + 10, nonce)
    call = (*values, *_signed(world, "TransferWithAuthorization", AUTHORIZATION, values))
    with pytest.raises(Reverted, match="token: authorization not yet valid"):
        world.token.send(world.stranger, "transferWithAuthorization", *call)
    world.wait(1)
    world.token.send(world.stranger, "transferWithAuthorization", *call)
    assert world.wallet(world.partner) == before + 5
    assert world.token.call("authorizationState", world.opener.address, nonce) is True
    with pytest.raises(Reverted, match="token: authorization used"):
        world.token.send(world.stranger, "transferWithAuthorization", *call)
    world.wait(9)
    with pytest.raises(Reverted, match="token: authorization expired"):
        world.token.send(world.stranger, "transferWithAuthorization", *call)


def test_an_authorization_to_receive_is_sent_by_the_receiver(world: World) -> None:
    before = world.wallet(world.partner)
    values = (world.opener.address, world.partner.address, 5, 0, ALWAYS, keccak(b"nonce"))
    call = (*values, *_signed(world, "ReceiveWithAuthorization", AUTHORIZATION, values))
    with pytest.raises(Reverted, match="token: caller is not the receiver"):
        world.token.send(world.stranger, "receiveWithAuthorization", *call)
    with pytest.raises(Reverted, match="token: bad signature"):
        world.token.send(world.stranger, "transferWithAuthorization", *call)
    world.token.send(world.partner, "receiveWithAuthorization", *call)
    assert world.wallet(world.partner) == before + 5


def test_a_cancelled_authorization_is_used_up(world: World) -> None:
    nonce = keccak(b"nonce")
    fields = {"authorizer": "address", "nonce": "bytes32"}
    cancel = (
        world.opener.address,
        nonce,
        *_signed(world, "CancelAuthorization", fields, (world.opener.address, nonce)),
    )
    world.token.send(world.stranger, "cancelAuthorization", *cancel)
    values = (world.opener.address, world.partner.address, 5, 0, ALWAYS, nonce)
    call = (*values, *_signed(world, "TransferWithAuthorization", AUTHORIZATION, values))
    for name, arguments in (("transferWithAuthorization", call), ("cancelAuthorization", cancel)):
        with pytest.raises(Reverted, match="token: authorization used"):
            world.token.send(world.stranger, name, *arguments)


def test_an_endless_allowance_stays_and_another_shrinks(world: World) -> None:
    for allowance, left in ((2**256 - 1, 2**256 - 1), (7, 2)):
        world.token.send(world.opener, "approve", world.partner.address, allowance)
        world.token.send(world.partner, "transferFrom", world.opener.address, world.stranger.address, 5)
        assert world.token.call("allowance", world.opener.address, world.partner.address) == left
    with pytest.raises(Reverted, match="token: allowance too low"):
        world.token.send(world.partner, "transferFrom", world.opener.address, world.stranger.address, 3)


@pytest.fixture
def ether(world: World) -> Contract:
    return deploy(world.chain, world.stranger, load("WrappedEther"))


def test_wrapped_ether_is_ether(world: World, ether: Contract) -> None:
    ether.send(world.opener, "deposit", value=3 * ETHER)
    send(world.chain, world.opener, ether.address, b"", ETHER)
    assert ether.call("balanceOf", world.opener.address) == ether.call("totalSupply") == 4 * ETHER
    before = world.chain.balance(world.opener.address)
    ether.send(world.opener, "withdraw", 4 * ETHER)
    assert world.chain.balance(world.opener.address) > before + 3 * ETHER
    assert ether.call("totalSupply") == 0


def test_wrapped_ether_moves_within_balance_and_allowance(world: World, ether: Contract) -> None:
    ether.send(world.opener, "deposit", value=10)
    ether.send(world.opener, "transfer", world.partner.address, 4)
    ether.send(world.opener, "approve", world.stranger.address, 5)
    ether.send(world.stranger, "transferFrom", world.opener.address, world.stranger.address, 5)
    balances = [ether.call("balanceOf", party.address) for party in world.parties]
    assert balances == [1, 4, 5]
    for sender, name, *args in (
        (world.opener, "withdraw", 2),
        (world.opener, "transfer", world.partner.address, 2),
    ):
        with pytest.raises(Reverted, match="token: balance too low"):
            ether.send(sender, str(name), *args)
    with pytest.raises(Reverted, match="token: allowance too low"):
        ether.send(world.stranger, "transferFrom", world.opener.address, world.stranger.address, 1)


@pytest.mark.parametrize("name", ["CryptoEuro", "WrappedEther"])
def test_tokens_sent_to_nobody_or_to_the_token_are_refused(world: World, name: str) -> None:
    token = world.token if name == "CryptoEuro" else deploy(world.chain, world.stranger, load(name))
    for receiver in (bytes(20), token.address):
        with pytest.raises(Reverted, match="token: no such receiver"):
            token.send(world.opener, "transfer", receiver, 0)


def test_a_channel_contract_serves_wrapped_ether(world: World, ether: Contract) -> None:
    channel = deploy(world.chain, world.stranger, load("Channel"), ether.address)
    ether.send(world.opener, "deposit", value=3 * ETHER)
    ether.send(world.opener, "approve", channel.address, ETHER)
    channel.send(world.opener, "deposit", ETHER)
    channel.send(world.opener, "withdraw", ETHER)
    assert ether.call("balanceOf", world.opener.address) == 3 * ETHER
