"""What the source of the channel contract must never say, and the few places where it may, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.chain import Chain

from ..contracts.world import START, deploy, key
from .checks import (
    Contract,
    forbidden,
    privileged,
    reentrancy,
    silent_writes,
    unbounded_loops,
    unchecked_calls,
    unguarded_writes,
    unsafe_sums,
)
from .proving import SOURCE

# `_signed` and ecrecover: a voucher key; `_check_account`: an account; `_is_partner`, `_check_payee`: a party itself.
GUARDS = {"_signed", "ecrecover", "_check_account", "_is_partner", "_check_payee"}
PAYS = {"_debit", "_pull"}

ARRIVAL = "what arrived is known only after the call; nothing is read before it, and the lock keeps its like out"
MAY_WRITE_AFTER_A_CALL = {
    "deposit: writes after a call": ARRIVAL,
    "open_from_token: writes after a call": ARRIVAL,
    "open_from_token_with_keys: writes after a call": ARRIVAL,
    "open_with_permit: writes after a call": ARRIVAL,
    "open_with_authorization: writes after a call": ARRIVAL,
    "add_from_token: writes after a call": ARRIVAL,
}
MAY_IGNORE = {
    "open_with_permit: the result of raw_call decides nothing": (
        "a permit may have been used by whoever saw it; the allowance decides"
    ),
    "open_with_authorization: the result of receiveWithAuthorization decides nothing": (
        "it returns nothing by EIP-3009; what arrived is counted"
    ),
}
MAY_BE_SILENT = {
    "open_from_token: changes without an event": "the token's own Transfer leads to the transaction, for gas",
    "prove: changes without an event": "without proofs it writes what was there; every proof logs",
}
MAY_WRITE_UNGUARDED = {
    "open: writes channels without a check": "pays from the caller's own slot, by name; the channel's slot is free",
    "open_with_authorization: writes channels without a check": (
        "the token checked the opener's signature, whose nonce commits to the channel; what arrived is counted"
    ),
    "prove: writes channels without a check": "anybody may: the preimages are the proof, and the payer's secret",
    "settle: writes channels without a check": "anybody may once the challenge is over; both sides are paid",
}

BELOW_ZERO = "may be below zero, which sets the top bit: the comparison after it looks at that bit"
OWN_BITS = "the slot's fields are 96 bits: what was compared before cannot reach a neighbour"
MAY_BE_UNSAFE = {
    (
        "_check_terms",
        "unsafe_sub(terms >> PERIOD_SHIFT, MIN_PERIOD)",
    ): "below the minimum it is huge, so above the maximum",
    ("open", "unsafe_sub(terms >> PERIOD_SHIFT, MIN_PERIOD)"): "as in _check_terms",
    ("open_from_token", "unsafe_sub(terms >> PERIOD_SHIFT, MIN_PERIOD)"): "as in _check_terms",
    ("open", "unsafe_sub(account >> 64, place >> 160)"): "compared just before",
    ("open", "unsafe_add(counter, 1)"): "a counter here is below 2**63",
    ("open", "unsafe_add( unsafe_sub(account >> 64, place >> 160) << 64, unsafe_add(counter, 1) )"): (
        "two fields of one word"
    ),
    ("_debit", "unsafe_sub(account, amount << 64)"): "compared just before",
    ("claim_many", "unsafe_sub(signed.voucher.amount, (word >> 96) & UINT96)"): BELOW_ZERO,
    ("claim_many", "unsafe_sub(gain, 1)"): BELOW_ZERO,
    ("claim_many", "unsafe_sub(word & UINT96, signed.voucher.amount)"): BELOW_ZERO,
    ("claim_many", "unsafe_add(word, gain << 96)"): OWN_BITS,
    ("claim_many", "unsafe_add(gains, gain)"): "no more than all tokens here, which fit 96 bits",
    ("close_mine", "unsafe_sub(word & UINT96, signed.partner_balance)"): BELOW_ZERO,
    ("close_mine", "unsafe_sub(signed.partner_balance, claimed)"): BELOW_ZERO,
    ("close_mine", "unsafe_add(row[3] >> 255, 27)"): "a bit and 27",
    ("close_mine", "unsafe_sub(signed.expiry, block.timestamp)"): BELOW_ZERO,
    ("close_mine", "unsafe_sub(HALF_ORDER, s)"): BELOW_ZERO,
    ("close_mine", "unsafe_mul(claimed, form.params.terms & TWO_WAY)"): "96 bits by one bit: zero where either is",
    ("close_mine", "unsafe_add(gains, gain)"): "no more than all tokens here, which fit 96 bits",
    ("close_mine", "unsafe_add(signed.opener_balance, claimed)"): (
        "what the pot leaves; where that is below zero, the two balances are not the pot, and the row is skipped"
    ),
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(SOURCE.read_text())


def guarded(contract: Contract) -> list[str]:
    return unguarded_writes(contract, "channels", GUARDS, PAYS)


@pytest.mark.parametrize(
    ("check", "allowed"),
    [
        (reentrancy, MAY_WRITE_AFTER_A_CALL),
        (unchecked_calls, MAY_IGNORE),
        (silent_writes, MAY_BE_SILENT),
        (guarded, MAY_WRITE_UNGUARDED),
        (forbidden, {}),
        (privileged, {}),
        (unbounded_loops, {}),
    ],
)
def test_only_what_has_a_reason_is_found(
    contract: Contract, check: Callable[[Contract], list[str]], allowed: dict[str, str]
) -> None:
    assert set(check(contract)) == set(allowed)


def test_unchecked_arithmetic_stands_only_where_it_has_a_reason(contract: Contract) -> None:
    assert unsafe_sums(contract) == set(MAY_BE_UNSAFE)


def test_the_compiler_is_pinned(contract: Contract) -> None:
    assert re.match(r"# pragma version \d+\.\d+\.\d+\n", contract.source)


def test_the_deployed_code_fits_the_limit_of_eip_170() -> None:
    deployer = key("deployer")
    chain = Chain({deployer.address: 10**20}, clock=lambda: START)
    token = deploy(chain, deployer, load("CryptoEuro"))
    assert len(chain.code(deploy(chain, deployer, load("Channel"), token.address).address)) <= 24_576


HEAD = """
TOKEN: immutable(address)
channels: HashMap[bytes32, uint256]
accounts: HashMap[uint256, uint256]
"""

# A seeded fault for each check, and what is found.
FAULTS = {
    "no lock": (
        reentrancy,
        """
@external
def out(id: bytes32):
    self._leave()

@internal
def _leave():
    extcall IERC20(TOKEN).transfer(msg.sender, 1)
""",
        "out: calls transfer without a lock",
    ),
    "a write after a call, in another function": (
        reentrancy,
        """
@external
@nonreentrant
def out(id: bytes32):
    extcall IERC20(TOKEN).transfer(msg.sender, 1)
    self._end(id)

@internal
def _end(id: bytes32):
    self.channels[id] = 0
""",
        "out: writes after a call",
    ),
    "a state that was read before a call": (
        reentrancy,
        """
@external
@nonreentrant
def out(id: bytes32):
    word: uint256 = self.channels[id]
    extcall IERC20(TOKEN).transfer(msg.sender, word)
    self.channels[id] = word - 1
""",
        "out: reads channels before a call and writes after it",
    ),
    "a result that is only kept": (
        unchecked_calls,
        """
@external
def out():
    moved: bool = extcall IERC20(TOKEN).transfer(msg.sender, 1)
""",
        "out: the result of transfer decides nothing",
    ),
    "a raw call whose failure is ignored": (
        unchecked_calls,
        """
@external
def out():
    raw_call(TOKEN, b"", revert_on_failure=False)
""",
        "out: the result of raw_call decides nothing",
    ),
    "a branch without an event": (
        silent_writes,
        """
@external
def set(id: bytes32, loud: bool):
    self._write(id)
    if loud:
        log Written(channel=id)

@internal
def _write(id: bytes32):
    self.channels[id] = 1
""",
        "set: changes without an event",
    ),
    "a write before the check": (
        guarded,
        """
@external
def end(id: bytes32, r: uint256):
    self.channels[id] = 0
    if not self._signed(id, r):
        raise "no"

@internal
def _signed(id: bytes32, r: uint256) -> bool:
    return True
""",
        "end: writes channels without a check",
    ),
    "somebody else pays": (
        guarded,
        """
@external
def open(id: bytes32, owner: uint256):
    self._debit(owner, 1)
    self.channels[id] = 1

@internal
def _debit(owner: uint256, amount: uint256):
    self.accounts[owner] -= amount
""",
        "open: takes from another by _debit without a check",
    ),
    "a delegate call": (
        forbidden,
        """
@external
def run(to: address):
    raw_call(to, b"", is_delegate_call=True)
""",
        "a delegate call",
    ),
    "an end": (
        forbidden,
        """
@external
def end():
    selfdestruct(msg.sender)
""",
        "selfdestruct is used",
    ),
    "the origin": (
        forbidden,
        """
@external
def run():
    assert tx.origin == msg.sender
""",
        "tx.origin is used",
    ),
    "an owner": (
        forbidden,
        "owner: address",
        "owner: storage that is not kept for each account or channel",
    ),
    "an owner's function": (
        privileged,
        """
@external
def run():
    assert msg.sender == self.owner
""",
        "run: the caller is compared with self.owner",
    ),
    "a loop as long as an argument says": (
        unbounded_loops,
        """
@external
def run(count: uint256):
    for at: uint256 in range(count):
        pass
""",
        "run: a loop over range(count)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_is_found(fault: str) -> None:
    check, source, finding = FAULTS[fault]
    assert finding in check(Contract(HEAD + source))


def test_new_unchecked_arithmetic_is_found() -> None:
    source = HEAD + "\n@external\ndef run(count: uint256) -> uint256:\n    return unsafe_add(count, 1)\n"
    assert unsafe_sums(Contract(source)) == {("run", "unsafe_add(count, 1)")}
