"""The frozen bytes of an escrow, against an independent EIP-712 encoder."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data

from penstock.core.codec import decode_part, encode
from penstock.core.escrow import (
    EscrowDomain,
    EscrowParams,
    MeterReading,
    SignedReading,
    authorization_nonce,
    deposit_digest,
    end_digest,
    tariff_hash,
)
from penstock.core.identity import Key, parse_address, to_hex
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity

from .test_vectors import load, raw

ESCROW = load("escrow")
TARIFF = Tariff(ESCROW["per"], tuple(Step(Instant(start), amount) for start, amount in ESCROW["steps"]))


def params() -> EscrowParams:
    at = ESCROW["domain"]
    domain = EscrowDomain(at["chain_id"], parse_address(at["contract"]), parse_address(at["token"]))
    fields = {name: parse_address(value) if isinstance(value, str) else value for name, value in given().items()}
    return EscrowParams(domain, tariff=tariff_hash(TARIFF), **fields)


def given() -> dict[str, Any]:
    fields: dict[str, Any] = ESCROW["params"]
    return fields


def typed(primary: str, fields: list[tuple[str, str]], message: dict[str, Any]) -> str:
    at = ESCROW["domain"]
    message_of = encode_typed_data(
        domain_data={
            "name": "Penstock Escrow",
            "version": "1",
            "chainId": at["chain_id"],
            "verifyingContract": at["contract"],
        },
        message_types={primary: [{"name": name, "type": kind} for kind, name in fields]},
        message_data={"escrow": raw(ESCROW["id"]), **message},
    )
    return to_hex(_hash_eip191_message(message_of))


def test_the_domain_the_tariff_and_the_id() -> None:
    assert to_hex(params().domain.separator) == ESCROW["separator"]
    assert to_hex(tariff_hash(TARIFF)) == ESCROW["tariff"]
    assert to_hex(params().id) == ESCROW["id"]


@pytest.mark.parametrize("vector", ESCROW["readings"], ids=lambda vector: str(vector["reading"][2]))
def test_a_reading_its_digest_its_signature_and_what_is_due(vector: dict[str, Any]) -> None:
    sequence, at, total, turns, last = vector["reading"]
    reading = MeterReading(sequence, Instant(at), Quantity(total), tuple(map(Quantity, turns)), last)
    fields = [
        ("bytes32", "escrow"),
        ("uint64", "sequence"),
        ("uint64", "at"),
        ("uint64", "total"),
        ("uint64[]", "turns"),
        ("bool", "last"),
    ]
    said = {"sequence": sequence, "at": at, "total": total, "turns": turns, "last": last}
    assert to_hex(reading.digest(params())) == vector["digest"] == typed("Reading", fields, said)
    signed = SignedReading(reading, Key(raw(ESCROW["meter_secret"])).sign(reading.digest(params())))
    assert to_hex(signed.signature) == vector["signature"]
    assert encode(signed).decode() == vector["evidence"]
    assert decode_part(vector["evidence"].encode(), SignedReading) == signed
    assert reading.due(TARIFF, params().deposit) == vector["due"]


def test_an_end_and_a_deposit() -> None:
    end, deposit = ESCROW["end"], ESCROW["deposit"]
    fields = [("bytes32", "escrow"), ("uint96", "amount")]
    assert (
        to_hex(end_digest(params(), end["amount"])) == end["digest"] == typed("End", fields, {"amount": end["amount"]})
    )
    fields = [("bytes32", "escrow"), ("uint96", "fee"), ("uint64", "expiry")]
    said = {"fee": deposit["fee"], "expiry": deposit["expiry"]}
    assert to_hex(deposit_digest(params(), **said)) == deposit["digest"] == typed("Deposit", fields, said)
    assert to_hex(authorization_nonce(params(), deposit["fee"])) == deposit["nonce"]
