"""The embedded chain, in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import TransactionFailed, UsageError
from penstock.core.identity import Key, keccak, parse_address
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet import genesis
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.execute import Request, Reverted
from penstock.ledgers.devnet.genesis import ACCOUNT_EUROS, Founded, found
from penstock.ledgers.devnet.manifest import Manifest, deployer_key, dev_key

ETHER = 10**18
STRANGER = Key(keccak(b"a stranger")).address
EURO = Interface(load("CryptoEuro")["abi"])


def signed(key: Key, nonce: int, to: bytes = STRANGER, **fields: object) -> bytes:
    """A raw EIP-1559 transfer of one wei, or what `fields` make of it."""
    transaction: dict[str, object] = {
        "type": 2,
        "chainId": 31_337,
        "nonce": nonce,
        "to": bytes(to),
        "gas": 100_000,
        "value": 1,
        "data": b"",
        "maxFeePerGas": 3 * 10**9,
        "maxPriorityFeePerGas": 10**9,
        **fields,
    }
    return bytes(
        Account.sign_transaction({k: v for k, v in transaction.items() if v is not None}, key.secret).raw_transaction
    )


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chain(clock: Clock) -> Chain:
    return Chain({dev_key(i).address: 10 * ETHER for i in range(4)}, clock=clock)


@pytest.fixture(scope="module")
def founded() -> Founded:
    return found(accounts=5)


def test_a_transfer_moves_ether_and_its_sender_pays_for_the_gas(chain: Chain) -> None:
    tx_hash = chain.send_raw(signed(dev_key(0), 0, value=ETHER))
    receipt = chain.receipt(tx_hash)
    assert receipt is not None
    assert receipt["status"] == "0x1"
    assert receipt["gasUsed"] == hex(21_000)
    paid = 21_000 * int(receipt["effectiveGasPrice"], 16)
    assert chain.balance(STRANGER) == ETHER
    assert chain.balance(dev_key(0).address) == 9 * ETHER - paid
    assert chain.balance(dev_key(0).address, 0) == 10 * ETHER


def test_what_was_submitted_together_shares_a_block(chain: Chain) -> None:
    hashes = [chain.submit(signed(dev_key(i % 4), i // 4)) for i in range(40)]
    assert chain.mine_waiting() == 1
    assert {chain.receipt(h)["blockNumber"] for h in hashes} == {"0x1"}  # type: ignore[index]
    assert chain.balance(STRANGER) == 40


def test_a_nonce_out_of_turn_waits_for_the_one_before(chain: Chain) -> None:
    late = chain.send_raw(signed(dev_key(0), 1))
    assert chain.receipt(late) is None
    assert chain.waiting(late) is not None
    assert chain.pending_nonce(dev_key(0).address) == 0
    chain.send_raw(signed(dev_key(0), 0))
    assert chain.receipt(late) is not None
    assert chain.nonce(dev_key(0).address) == 2


def test_a_waiting_transaction_is_replaced_by_one_that_pays_a_tenth_more(chain: Chain) -> None:
    first = chain.submit(signed(dev_key(0), 0))
    with pytest.raises(TransactionFailed, match="underpriced"):
        chain.submit(signed(dev_key(0), 0, maxFeePerGas=3_200_000_000))
    second = chain.submit(signed(dev_key(0), 0, maxFeePerGas=3_300_000_000))
    chain.mine_waiting()
    assert chain.receipt(first) is None
    assert chain.receipt(second) is not None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"chainId": 1}, "invalid chain id"),
        ({"gas": 20_999}, "intrinsic gas too low"),
        ({"data": b"\x01" * 1_000, "gas": 60_000}, "intrinsic gas too low"),  # EIP-7623: the floor, 61,000
        ({"gas": 100_000_001}, "exceeds block gas limit"),
        ({"value": 11 * ETHER}, "insufficient funds"),
        ({"maxFeePerGas": 1, "maxPriorityFeePerGas": 1}, "less than block base fee"),
        ({"nonce_ahead": 5_000}, "nonce too high"),
    ],
)
def test_what_could_not_be_mined_is_refused(chain: Chain, fields: dict[str, object], complaint: str) -> None:
    nonce = int(str(fields.get("nonce_ahead", 0)))
    changed: dict[str, Any] = {name: value for name, value in fields.items() if name != "nonce_ahead"}
    raw = signed(dev_key(0), nonce, STRANGER, **changed)
    with pytest.raises(TransactionFailed, match=complaint):
        chain.submit(raw)
    assert chain.mine_waiting() == 0


def test_a_used_nonce_and_a_known_transaction_are_refused(chain: Chain) -> None:
    raw = signed(dev_key(0), 0)
    chain.submit(raw)
    with pytest.raises(TransactionFailed, match="already known"):
        chain.submit(raw)
    chain.mine_waiting()
    with pytest.raises(TransactionFailed, match="nonce too low"):
        chain.submit(raw)


def test_money_that_was_spent_earlier_in_the_block_is_missed_later(chain: Chain) -> None:
    first = chain.submit(signed(dev_key(0), 0, value=9 * ETHER))
    second = chain.submit(signed(dev_key(0), 1, value=9 * ETHER))
    chain.mine_waiting()
    assert chain.receipt(first) is not None
    assert chain.receipt(second) is None
    assert chain.waiting(second) is None
    assert chain.balance(STRANGER) == 9 * ETHER


@pytest.mark.parametrize(
    "fields",
    [
        {"type": None, "maxFeePerGas": None, "maxPriorityFeePerGas": None, "gasPrice": 3 * 10**9},
        {
            "type": 1,
            "maxFeePerGas": None,
            "maxPriorityFeePerGas": None,
            "gasPrice": 3 * 10**9,
            "accessList": [{"address": "0x" + "11" * 20, "storageKeys": ["0x" + "22" * 32]}],
        },
        {"type": 2},
    ],
)
def test_legacy_access_list_and_fee_market_transactions_are_mined(chain: Chain, fields: dict[str, object]) -> None:
    tx_hash = chain.send_raw(signed(dev_key(0), 0, **fields))
    receipt = chain.receipt(tx_hash)
    assert receipt is not None
    assert receipt["type"] == hex(int(str(fields["type"] or 0)))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_transaction_are_refused_and_change_nothing(raw: bytes) -> None:
    chain = _SHARED
    with pytest.raises(TransactionFailed):
        chain.submit(raw)
    assert chain.mine_waiting() == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 110), st.integers(1, 255))
def test_a_transaction_with_a_flipped_byte_never_spends_the_signers_money(at: int, flip: int) -> None:
    chain = _SHARED
    raw = bytearray(signed(dev_key(0), 0))
    raw[at % len(raw)] ^= flip
    with pytest.raises(TransactionFailed):  # another sender, without money, or no transaction at all
        chain.submit(bytes(raw))
    assert chain.balance(dev_key(0).address) == ETHER


_SHARED = Chain({dev_key(0).address: ETHER})


def test_blocks_of_one_second_carry_the_same_time_and_time_never_falls(chain: Chain, clock: Clock) -> None:
    for _ in range(5):
        chain.mine()
    assert chain.head.timestamp == 1_700_000_000
    clock.now -= 50  # the machine's clock is set back
    chain.mine()
    assert chain.head.timestamp == 1_700_000_000
    clock.now += 60
    chain.mine()
    assert chain.head.timestamp == 1_700_000_010


def test_time_jumps_and_goes_on_from_where_it_was_set(chain: Chain, clock: Clock) -> None:
    chain.increase_time(3_600)
    chain.mine()
    assert chain.head.timestamp == 1_700_003_600
    chain.set_next_timestamp(1_700_010_000)
    assert chain.now() == 1_700_010_000
    chain.mine()
    clock.now += 5
    chain.mine()
    assert chain.head.timestamp == 1_700_010_005
    with pytest.raises(TransactionFailed, match="before the newest block"):
        chain.set_next_timestamp(1_700_010_004)


def test_a_call_sees_the_time_of_the_block_to_come(founded: Founded) -> None:
    chain = Chain({dev_key(0).address: ETHER}, clock=(clock := Clock()))
    # TIMESTAMP PUSH0 MSTORE, PUSH1 32 PUSH0 RETURN
    code = bytes.fromhex("425f5260205ff3")
    chain.mine()
    clock.now += 1_000
    returned = chain.call(Request(data=code))  # a creation's code runs and returns the time
    assert int.from_bytes(returned, "big") == 1_700_001_000
    assert int.from_bytes(chain.call(Request(data=code), 1), "big") == 1_700_000_000


def test_genesis_deploys_the_contracts_and_funds_the_accounts(founded: Founded) -> None:
    chain = founded.chain
    assert chain.head.block_number == 1
    tokens, kinds = ("CryptoEuro", "WrappedEther"), ("Channel", "Escrow")
    assert set(founded.contracts) == {*tokens, *(token + kind for token in tokens for kind in kinds)}
    for token, kind in ((token, kind) for token in tokens for kind in kinds):
        asked = Request(parse_address(founded.contracts[token + kind]), Interface(load(kind)["abi"]).encode("token"))
        assert chain.call(asked)[12:] == parse_address(founded.contracts[token])
    euro = parse_address(founded.contracts["CryptoEuro"])
    for index in range(5):
        owner = dev_key(index).address
        assert chain.balance(owner) == 1_000 * ETHER
        assert EURO.decode("balanceOf", chain.call(Request(euro, EURO.encode("balanceOf", owner)))) == (ACCOUNT_EUROS,)


def test_a_revert_gives_the_contracts_own_word(founded: Founded) -> None:
    channel = parse_address(founded.contracts["CryptoEuroChannel"])
    calldata = Interface(load("Channel")["abi"]).encode("withdraw", 5)
    with pytest.raises(Reverted) as raised:
        founded.chain.call(Request(channel, calldata, sender=dev_key(0).address))
    assert raised.value.reason.startswith("channel: ")
    with pytest.raises(Reverted):
        founded.chain.estimate(Request(channel, calldata, sender=dev_key(0).address))


def test_a_gas_estimate_suffices_and_is_no_more_than_a_fiftieth_above_what_is_needed(founded: Founded) -> None:
    chain, key = founded.chain, dev_key(1)
    euro = parse_address(founded.contracts["CryptoEuro"])
    calldata = EURO.encode("transfer", STRANGER, 7)
    request = Request(euro, calldata, sender=key.address)
    gas = chain.estimate(request)
    chain.call(request)
    assert chain.estimate(request) == gas  # what was executed before leaves no trace
    nonce = chain.nonce(key.address)
    short = chain.receipt(chain.send_raw(signed(key, nonce, euro, data=calldata, value=0, gas=gas * 49 // 50 - 1)))
    assert short is not None
    assert short["status"] == "0x0"
    enough = chain.receipt(chain.send_raw(signed(key, nonce + 1, euro, data=calldata, value=0, gas=gas)))
    assert enough is not None
    assert enough["status"] == "0x1"


def test_logs_are_found_by_block_address_and_topic(founded: Founded) -> None:
    chain, key = founded.chain, deployer_key()
    euro = parse_address(founded.contracts["CryptoEuro"])
    holders = [Key(keccak(b"holder %d" % i)).address for i in range(300)]
    first = int(chain.head.block_number) + 1
    for index in range(4):
        calldata = EURO.encode("mint", holders, 10 + index)
        chain.submit(
            signed(
                key, chain.nonce(key.address) + index, euro, data=calldata, value=0, gas=15_000_000, maxFeePerGas=10**10
            )
        )
    chain.mine_waiting()
    transfer = keccak(b"Transfer(address,address,uint256)")
    logs = chain.logs(first, None, [euro], [[transfer]])
    assert len(logs) == 1_200
    assert [int(log["logIndex"], 16) for log in logs] == list(range(1_200))
    one = chain.logs(0, None, [], [None, None, [holders[7].rjust(32, b"\0")]])
    assert [int(log["data"], 16) for log in one] == [10, 11, 12, 13]
    two = chain.logs(0, None, [euro], [[transfer], None, [h.rjust(32, b"\0") for h in holders[:2]]])
    assert len(two) == 8
    assert chain.logs(0, first - 1, [], [None, None, [holders[7].rjust(32, b"\0")]]) == []
    assert chain.logs(first, None, [STRANGER]) == []
    assert chain.logs(first, None, [euro], [[keccak(b"Nothing()")]]) == []
    assert chain.logs(first, None, [euro], [None, None, None, None]) == []  # none has four topics


def test_calls_as_deep_as_the_gas_allows_and_nested_bytes_are_survived(chain: Chain) -> None:
    # PUSH0 five times, ADDRESS, GAS, CALL: it calls itself until the gas is spent
    calls_itself = bytes.fromhex("5f5f5f5f5f305af100")
    creation = b"\x68" + calls_itself + bytes.fromhex("5f5260096017f3")
    made = chain.receipt(chain.send_raw(signed(dev_key(0), 0, b"", data=creation, value=0)))
    assert made is not None
    contract = parse_address(made["contractAddress"])
    assert chain.code(contract) == calls_itself
    run = chain.receipt(chain.send_raw(signed(dev_key(0), 1, contract, gas=100_000_000, value=0)))
    assert run is not None
    assert run["status"] == "0x1"
    nested = b""
    while len(nested) < 120_000:
        size = len(nested)
        wide = size.to_bytes((size.bit_length() + 7) // 8, "big")
        nested = (bytes((0xC0 + size,)) if size < 56 else bytes((0xF7 + len(wide),)) + wide) + nested
    for prefix in (b"", b"\x01", b"\x02", b"\x04"):
        with pytest.raises(TransactionFailed, match="not a signed transaction"):
            chain.submit(prefix + nested)


def test_a_snapshot_brings_back_blocks_balances_logs_and_time(chain: Chain, clock: Clock) -> None:
    chain.send_raw(signed(dev_key(0), 0))
    point, head = chain.snapshot(), chain.head.hash
    late = chain.send_raw(signed(dev_key(0), 1))
    chain.increase_time(500)
    chain.mine()
    assert chain.revert(point)
    assert (chain.head.hash, chain.balance(STRANGER), chain.receipt(late)) == (head, 1, None)
    assert chain.store.block(2) is None
    assert not chain.revert(point)
    for nonce in range(1, 5):
        chain.send_raw(signed(dev_key(0), nonce))
    assert (chain.head.block_number, chain.head.timestamp, chain.balance(STRANGER)) == (5, 1_700_000_000, 5)
    assert chain.header(3).parent_hash == chain.header(2).hash


def test_state_in_a_directory_goes_on_from_the_same_head(tmp_path: Path, clock: Clock) -> None:
    begun = Chain({dev_key(0).address: ETHER}, directory=tmp_path, clock=clock)
    tx_hash = begun.send_raw(signed(dev_key(0), 0))
    begun.increase_time(700)
    begun.mine()
    head = begun.head.hash
    begun.close()
    again = Chain(directory=tmp_path, clock=clock)
    assert again.head.hash == head
    assert again.receipt(tx_hash) is not None
    assert again.now() == 1_700_000_700
    again.send_raw(signed(dev_key(0), 1))
    assert again.balance(STRANGER) == 2
    again.close()


def test_a_chain_killed_between_any_two_blocks_is_whole(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from penstock.ledgers.devnet.chain import Chain\n"
        "from penstock.ledgers.devnet.manifest import dev_key\n"
        "chain = Chain({dev_key(0).address: 10**18}, directory=Path(sys.argv[1]))\n"
        "for line in sys.stdin:\n"
        "    print(chain.send_raw(bytes.fromhex(line)).hex(), flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    raws = [signed(dev_key(0), nonce) for nonce in range(200)]
    child.stdin.write("".join(raw.hex() + "\n" for raw in raws))
    child.stdin.flush()
    told = [bytes.fromhex(child.stdout.readline()) for _ in range(20)]
    child.kill()  # in the midst of the others
    child.wait(10)
    told += [bytes.fromhex(line) for line in child.stdout.read().split()]
    child.stdin.close()
    child.stdout.close()
    chain = Chain(directory=tmp_path)
    assert all(chain.receipt(tx_hash) is not None for tx_hash in told)
    mined = chain.nonce(dev_key(0).address)
    assert chain.balance(STRANGER) == mined == chain.head.block_number
    assert len(told) <= mined <= len(told) + 1
    chain.send_raw(raws[mined])
    chain.close()


def test_a_directory_in_use_or_with_another_chain_is_refused(tmp_path: Path) -> None:
    chain = Chain({dev_key(0).address: 1}, directory=tmp_path)
    with pytest.raises(UsageError, match="another devnet"):
        Chain(directory=tmp_path)
    chain.close()
    with pytest.raises(UsageError, match="id 31337, not 5"):
        Chain(directory=tmp_path, chain_id=5)
    Chain(directory=tmp_path).close()


def test_a_damaged_or_unusable_directory_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "chain.sqlite").write_bytes(os.urandom(8_192))
    with pytest.raises(UsageError) as raised:
        Chain(directory=tmp_path)
    assert raised.value.advice
    with pytest.raises(UsageError):
        Chain(directory=tmp_path / "chain.sqlite")


def test_a_devnet_stopped_before_its_contracts_were_mined_is_completed(tmp_path: Path) -> None:
    accounts: dict[bytes, int] = {dev_key(i).address: 1_000 * ETHER for i in range(3)}
    Chain({**accounts, deployer_key().address: 1_000 * ETHER}, directory=tmp_path).close()
    founded = found(tmp_path, accounts=1)
    assert len(founded.accounts) == 3  # those of the directory
    assert all(founded.chain.code(parse_address(address)) for address in founded.contracts.values())
    founded.chain.close()
    again = found(tmp_path)
    assert (again.contracts, again.accounts) == (founded.contracts, founded.accounts)
    assert again.chain.head.block_number == 1
    again.chain.close()


def test_an_older_devnet_gets_the_contracts_it_lacks_and_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = genesis._steps
    with monkeypatch.context() as older:
        older.setattr(genesis, "_steps", lambda owners: every(owners)[:-2])  # as it was before there were escrows
        before = found(tmp_path, accounts=2)
    assert "CryptoEuroEscrow" not in before.contracts
    before.chain.close()
    after = found(tmp_path)
    assert after.contracts.items() > before.contracts.items()
    assert all(after.chain.code(parse_address(address)) for address in after.contracts.values())
    assert after.chain.head.block_number == 2
    after.chain.close()


def test_a_manifest_is_read_back_and_a_missing_one_is_a_usage_error(tmp_path: Path) -> None:
    manifest = Manifest("http://127.0.0.1:1", 5, {"CryptoEuro": "0x00"}, ("0x01",))
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    with pytest.raises(UsageError, match="no devnet"):
        Manifest.read(tmp_path / "elsewhere")
    (tmp_path / "devnet.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        Manifest.read(tmp_path)


def test_too_many_accounts_are_refused() -> None:
    with pytest.raises(UsageError, match="accounts"):
        found(accounts=2_001)
