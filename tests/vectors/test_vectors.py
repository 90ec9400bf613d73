"""The frozen bytes of version 1: what two implementations must agree on.

Each JSON file has the inputs in plain form and the bytes in hexadecimal. A change here is a new version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data

from penstock.core.channel import ChannelParams, Close, Domain, Lock, LockTree, Release, Voucher, locks_root
from penstock.core.codec import decode, encode
from penstock.core.hops import NO_VOUCHER, Incoming, InRow, Outgoing, OutRow, Place
from penstock.core.identity import Digest, Key, parse_address, recover, to_hex
from penstock.core.messages import Message, Reach, Taken
from penstock.core.meter import Tolerance
from penstock.core.offer import Offer, Receipt, Terms, accept_digest, propose_digest
from penstock.core.tariff import Step, Tariff
from penstock.core.ticks import TickChain
from penstock.core.units import Amount, Instant, Quantity
from penstock.rails.hops import HopPayer
from penstock.rails.hops import decode_terms as decode_hop_terms
from penstock.rails.stream import PAID_ROWS, StreamOffer, StreamPayer, StreamTerms, decode_paid

HERE = Path(__file__).parent


def load(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text())


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def domain_of(vector: dict[str, Any]) -> Domain:
    return Domain(vector["chain_id"], parse_address(vector["contract"]), parse_address(vector["token"]))


def params_of(vector: dict[str, Any]) -> ChannelParams:
    fields = dict(vector["params"])
    for party in ("opener", "partner", "opener_key", "partner_key"):
        fields[party] = parse_address(fields[party])
    return ChannelParams(domain=domain_of(vector["domain"]), **fields)


def lock_of(fields: list[Any]) -> Lock:
    return Lock(raw(fields[0]), *fields[1:])


CHANNEL = load("channel")
STREAM = load("stream")
SESSION = load("session")
MESSAGES = load("messages")
HOPS = load("hops")


def test_the_domain_separator_and_the_id_of_a_channel() -> None:
    params = params_of(CHANNEL)
    assert to_hex(params.domain.separator) == CHANNEL["separator"]
    assert to_hex(params.id) == CHANNEL["id"]


def typed(primary: str, fields: list[tuple[str, str]], message: dict[str, Any]) -> Any:
    domain = CHANNEL["domain"]
    return encode_typed_data(
        domain_data={
            "name": "Penstock Channel",
            "version": "1",
            "chainId": domain["chain_id"],
            "verifyingContract": domain["contract"],
        },
        message_types={primary: [{"name": name, "type": kind} for kind, name in fields]},
        message_data=message,
    )


@pytest.mark.parametrize("vector", CHANNEL["vouchers"], ids=lambda vector: vector["what"])
def test_a_voucher_its_digest_and_its_signature(vector: dict[str, Any]) -> None:
    params = params_of(CHANNEL)
    locks = [lock_of(lock) for lock in vector["locks"]]
    voucher = Voucher.over(vector["nonce"], vector["amount"], locks)
    assert to_hex(voucher.locks_root) == vector["locks_root"]
    assert to_hex(voucher.digest(params)) == vector["digest"]
    key = Key(raw(vector["key"]))
    assert to_hex(key.sign(voucher.digest(params))) == vector["signature"]
    assert recover(Digest(raw(vector["digest"])), raw(vector["signature"])) == params.opener_key
    signable = typed(
        "Voucher",
        [
            ("bytes32", "channel"),
            ("uint64", "nonce"),
            ("uint96", "amount"),
            ("uint96", "locked"),
            ("uint64", "lockedUntil"),
            ("bytes32", "locksRoot"),
        ],
        {
            "channel": params.id,
            "nonce": voucher.nonce,
            "amount": voucher.amount,
            "locked": voucher.locked,
            "lockedUntil": voucher.locked_until,
            "locksRoot": voucher.locks_root,
        },
    )
    assert to_hex(signable.header) == CHANNEL["separator"]
    assert to_hex(_hash_eip191_message(signable)) == vector["digest"]


def test_a_close_and_its_digest() -> None:
    vector, params = CHANNEL["close"], params_of(CHANNEL)
    close = Close(vector["opener_balance"], vector["partner_balance"], vector["expiry"])
    assert to_hex(close.digest(params)) == vector["digest"]


@pytest.mark.parametrize("vector", CHANNEL["trees"], ids=lambda vector: f"{len(vector['locks'])} locks")
def test_a_tree_of_locks_with_its_branches(vector: dict[str, Any]) -> None:
    locks = [lock_of(lock) for lock in vector["locks"]]
    assert to_hex(locks_root(locks)) == vector["root"]
    for index, branch in enumerate(vector["branches"]):
        assert [to_hex(node) for node in LockTree(locks).branch(index)] == branch


def test_the_evidence_of_ticks_and_the_seed_they_grow_from() -> None:
    params = params_of(CHANNEL)
    terms = StreamTerms(params, STREAM["nonce"], STREAM["amount"], STREAM["tick_value"])
    payer = StreamPayer(terms, STREAM["deposit"], Key(raw(STREAM["key"])), raw(STREAM["secret"]))
    opening = payer.open()
    assert to_hex(opening.data) == STREAM["opening"]
    row = decode_paid(dict(opening.rows)[PAID_ROWS + params.id] or b"")
    assert to_hex(payer._seed(row.chain_nonce)) == STREAM["seed"]
    ticks = payer.pay(STREAM["pay"]) + payer.fold()
    assert [to_hex(one.data) for one in ticks] == STREAM["ticks"]
    assert to_hex(payer.square(STREAM["bill"]).data) == STREAM["square"]


def offer_of(fields: dict[str, Any]) -> Offer:
    return Offer(
        supplier=parse_address(fields["supplier"]),
        name=fields["name"],
        medium=fields["medium"],
        tariff=Tariff(fields["per"], tuple(Step(Instant(start), amount) for start, amount in fields["steps"])),
        tick_value=fields["tick_value"],
        package=fields["package"],
        credit_limit=fields["credit_limit"],
        mode=fields["mode"],
        tolerance=Tolerance(*fields["tolerance"]),
        rails={"stream-channel": rail_of(fields)},
        meter="",
        expires=Instant(fields["expires"]),
    )


def rail_of(fields: dict[str, Any]) -> bytes:
    supplier = parse_address(fields["supplier"])
    return encode(StreamOffer(domain_of(CHANNEL["domain"]), supplier, supplier, fields["min_period"]))


def terms_of(session: dict[str, Any]) -> Terms:
    fields = session["terms"]
    return Terms(
        offer=offer_of(session["offer"]),
        consumer=parse_address(fields["consumer"]),
        rail="stream-channel",
        rail_terms=encode(StreamTerms(params_of(CHANNEL), 0, 0, session["offer"]["tick_value"])),
        quantity_limit=fields["quantity_limit"],
        budget=fields["budget"],
        at=Instant(fields["at"]),
        nonce=raw(fields["nonce"]),
    )


def receipt_of(session: dict[str, Any]) -> Receipt:
    fields = session["receipt"]
    return Receipt(
        terms_of(session).digest(),
        Quantity(fields["supplier_total"]),
        Quantity(fields["consumer_total"]),
        Amount(fields["paid"]),
        Amount(fields["unpaid"]),
        fields["ticks"],
        fields["reason"],
        Instant(fields["at"]),
    )


def test_the_digests_of_offer_terms_and_receipt() -> None:
    terms = terms_of(SESSION)
    assert encode(terms).decode() == SESSION["terms_bytes"]
    found = {
        "offer": terms.offer.digest(),
        "terms": terms.digest(),
        "propose": propose_digest(terms.digest()),
        "accept": accept_digest(terms.digest()),
        "receipt": receipt_of(SESSION).digest(),
    }
    assert {name: to_hex(digest) for name, digest in found.items()} == SESSION["digests"]


def test_three_promises_what_their_payee_answers_and_how_a_lock_stands() -> None:
    """A lock comes, its end is asked for, and it is settled while another comes: both sides make these very bytes."""
    params = params_of(CHANNEL)
    payer, payee = Key(raw(HOPS["payer_key"])), Key(raw(HOPS["payee_key"]))
    out = Outgoing(params, HOPS["deposit"], payer, OutRow(NO_VOUCHER), {})
    incoming = Incoming(params, HOPS["deposit"], payee, InRow(NO_VOUCHER), {})
    chain, said = TickChain(raw(HOPS["seed"]), HOPS["locks"][0][1]), list[bytes]()
    roots = [raw(HOPS["root"]), raw(HOPS["second_root"])]
    first, second = [Lock(root, *lock) for root, lock in zip(roots, HOPS["locks"], strict=True)]
    assert chain.root == first.root

    def exchange() -> Taken:
        made = out.promise()
        assert made is not None
        said.append(encode(made[1]))
        answer = incoming.take(made[1], 2**40).answer
        out.taken(answer)
        return answer

    hop = decode(HOPS["promises"][0].encode()).changes[0].onward  # type: ignore[union-attr]  # a promise with a lock
    number = out.add(first, HOPS["holding"][0], hop)
    exchange()
    incoming.prove(number, 137, chain.preimage(137))
    out.ask(number, 137, chain.preimage(137), 400)
    exchange()
    incoming.done(number, 138_300)
    told = incoming.locks[number].told(Place(params.id, number))
    assert told is not None
    assert encode(told).decode() == MESSAGES["Told"]
    out.told(told)
    out.settle(number, told.total)
    out.add(second, HOPS["holding"][1], ())
    answer = exchange()
    assert [one.decode() for one in said] == HOPS["promises"]
    assert said[-1].decode() == MESSAGES["Promise"]
    assert encode(answer).decode() == MESSAGES["Taken"]
    assert to_hex(answer.release) == HOPS["release"]
    assert recover(Release(3, out.row.amount).digest(params), answer.release) == params.partner_key


def test_the_evidence_of_a_session_over_hubs() -> None:
    terms = decode_hop_terms(HOPS["terms"].encode())
    assert encode(terms).decode() == HOPS["terms"]
    payer = HopPayer(terms, HOPS["tick_value"], raw(HOPS["seed"]))
    assert [to_hex(one.data) for one in payer.pay(HOPS["bill"])] == HOPS["ticks"]
    assert to_hex(payer.square(HOPS["bill"]).data) == HOPS["square"]


def test_what_a_hub_says_of_itself_and_its_digest() -> None:
    message = decode(MESSAGES["Reach"].encode())
    assert isinstance(message, Reach)
    for one in message.known:
        one.check()
    assert to_hex(message.known[0].reached.digest()) == HOPS["reach_digest"]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_as_bytes(name: str) -> None:
    frame = MESSAGES[name].encode()
    message = decode(frame)
    assert type(message).__name__ == name
    assert encode(message) == frame
    assert type(message).__struct_config__.tag == list(MESSAGES).index(name) + 1


def test_every_message_is_frozen() -> None:
    assert len(MESSAGES) == len(get_args(Message))
    assert msgspec.json.decode(MESSAGES["Metered"]) == [6, 1234, 1742256000000, 493000, "", "", 1400, 2]
