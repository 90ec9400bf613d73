"""The contract, core and eth-account agree on every id and digest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_account.messages import encode_typed_data

from penstock.core.channel import (
    APART,
    Answer,
    ChannelParams,
    Close,
    Release,
    SignedAddition,
    SignedOpening,
    Voucher,
    Withdrawal,
)
from penstock.core.identity import keccak

from .world import World


def _typed(params: ChannelParams, purpose: str, fields: dict[str, str], message: dict[str, Any]) -> bytes:
    signable = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                purpose: [{"name": name, "type": kind} for name, kind in fields.items()],
            },
            "primaryType": purpose,
            "domain": {
                "name": "Penstock Channel",
                "version": "1",
                "chainId": params.domain.chain_id,
                "verifyingContract": "0x" + params.domain.contract.hex(),
            },
            "message": {"channel": params.id, **message},
        }
    )
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


def test_the_domain_separator_is_the_same_here_and_there(world: World) -> None:
    assert world.channel.call("domain_separator") == world.domain.separator
    assert bytes.fromhex(world.channel.call("token")[2:]) == world.token.address


@pytest.mark.parametrize("two_way", [False, True])
@pytest.mark.parametrize("counter", [0, APART - 1, APART, 2**64 - 1])
@pytest.mark.parametrize("plain", [False, True])
def test_an_id_is_the_same_here_and_there(world: World, two_way: bool, counter: int, plain: bool) -> None:
    params = world.params(two_way, counter=counter, **(world.plain if plain else {}))
    receipt = world.open_by(world.opener, "open_with_keys", params, 1)
    assert world.channel.events(receipt, "Opened")[0]["channel"] == params.id


@pytest.mark.parametrize("field", ["opener", "partner", "opener_key", "partner_key", "counter"])
def test_an_id_commits_to_every_parameter(world: World, field: str) -> None:
    base = world.params(counter=7)
    fixed: dict[str, Any] = {"counter": 7, field: 8 if field == "counter" else world.stranger.address}
    other = world.params(**fixed)
    assert len({base.id, other.id, world.params(True, counter=7).id, world.params(period=60, counter=7).id}) == 4


@pytest.mark.parametrize(
    "voucher",
    [Voucher(1, 5, 0, 0, bytes(32)), Voucher(2**64 - 1, 2**96 - 1, 2**96 - 1, 2**64 - 1, b"\xff" * 32)],
)
def test_a_voucher_has_the_digest_of_any_eip_712_library(world: World, voucher: Voucher) -> None:
    params = world.params()
    fields = {
        "channel": "bytes32",
        "nonce": "uint64",
        "amount": "uint96",
        "locked": "uint96",
        "lockedUntil": "uint64",
        "locksRoot": "bytes32",
    }
    message = {
        "nonce": voucher.nonce,
        "amount": voucher.amount,
        "locked": voucher.locked,
        "lockedUntil": voucher.locked_until,
        "locksRoot": voucher.locks_root,
    }
    assert voucher.digest(params) == _typed(params, "Voucher", fields, message)


def test_a_close_has_the_digest_of_any_eip_712_library(world: World) -> None:
    params = world.params()
    fields = {"channel": "bytes32", "openerBalance": "uint96", "partnerBalance": "uint96", "expiry": "uint64"}
    message = {"openerBalance": 3, "partnerBalance": 2**96 - 1, "expiry": 9}
    assert Close(3, 2**96 - 1, 9).digest(params) == _typed(params, "Close", fields, message)


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        (Withdrawal(3, 2**96 - 1, 9), ("openerTotal uint96", "partnerTotal uint96", "expiry uint64")),
        (Release(2**64 - 1, 5), ("nonce uint64", "amount uint96")),
        (Answer(b"\x07" * 32, 8), ("content bytes32", "sequence uint64")),
        (SignedOpening(3, 4, 9), ("deposit uint96", "fee uint96", "expiry uint64")),
        (SignedAddition(3, 4, 9), ("total uint96", "fee uint96", "expiry uint64")),
    ],
)
def test_every_other_signed_thing_has_the_digest_of_any_eip_712_library(
    world: World, what: Withdrawal | Release | Answer | SignedOpening | SignedAddition, fields: tuple[str, ...]
) -> None:
    params = world.params()
    purpose = {"SignedOpening": "Open", "SignedAddition": "Add"}.get(type(what).__name__, type(what).__name__)
    kinds = {"channel": "bytes32", **dict(field.split() for field in fields)}
    message = dict(zip(list(kinds)[1:], msgspec.structs.astuple(what), strict=True))
    assert what.digest(params) == _typed(params, purpose, kinds, message)


def test_an_answer_names_the_struct_hash_of_what_it_files(world: World) -> None:
    params = world.params()
    for what in (Voucher(1, 5, 0, 0, bytes(32)), Release(1, 5)):
        assert what.digest(params) == keccak(b"\x19\x01" + params.domain.separator + what.content(params))


def test_a_voucher_and_a_close_never_share_a_digest(world: World) -> None:
    params = world.params()
    assert Voucher(1, 2, 3, 0, bytes(32)).digest(params) != Close(1, 2, 3).digest(params)


def test_another_contract_or_chain_has_other_digests(world: World) -> None:
    params = world.params(counter=1)
    digests = {Voucher(1, 5, 0, 0, bytes(32)).digest(params)}
    for domain in (
        type(world.domain)(world.domain.chain_id + 1, world.domain.contract, world.domain.token),
        type(world.domain)(world.domain.chain_id, world.token.address, world.domain.token),
        type(world.domain)(world.domain.chain_id, world.domain.contract, world.stranger.address),
    ):
        elsewhere = ChannelParams(
            domain,
            params.opener,
            params.partner,
            params.opener_key,
            params.partner_key,
            params.period,
            params.two_way,
            params.counter,
        )
        digests.add(Voucher(1, 5, 0, 0, bytes(32)).digest(elsewhere))
    assert len(digests) == 4
