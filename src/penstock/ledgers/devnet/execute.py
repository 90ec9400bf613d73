"""Execution without a block: calls and gas estimates on a state that is thrown away."""

from __future__ import annotations

import msgspec
from eth.exceptions import Revert
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError

from penstock.core.errors import TransactionFailed
from penstock.core.identity import ZERO_ADDRESS
from penstock.ledgers.devnet.rules import Computation, Evm, Header, Vm

CALL_GAS = 50_000_000  # what a call may burn; geth's default cap for RPC calls
_STIPEND = 2_300  # gas that a value transfer lends to its callee
_ESTIMATE_ERROR = 0.02  # where the search stops (geth: 0.015); the first guess is mostly within it
_ERROR_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
_PANIC_SELECTOR = bytes.fromhex("4e487b71")  # Panic(uint256)


class Request(msgspec.Struct, frozen=True):
    """What to execute: `to` empty creates a contract; `gas` None allows CALL_GAS; `value` in wei."""

    to: bytes = b""
    data: bytes = b""
    sender: bytes = ZERO_ADDRESS
    value: int = 0
    gas: int | None = None


class Reverted(TransactionFailed):
    """The contract reverted; `data` is what it returned, `reason` its own word where it gave one."""

    def __init__(self, data: bytes) -> None:
        reason = revert_reason(data)
        super().__init__(f"execution reverted: {reason}" if reason else "execution reverted", reason=reason)
        self.data = data


def revert_reason(data: bytes) -> str:
    """The text of Error(string) or the number of Panic(uint256); empty for anything else."""
    selector, body = data[:4], data[4:]
    if selector == _PANIC_SELECTOR and len(body) == 32:
        return f"panic 0x{int.from_bytes(body, 'big'):02x}"
    if selector != _ERROR_SELECTOR or len(body) < 64:
        return ""
    length = int.from_bytes(body[32:64], "big")
    return body[64 : 64 + length].decode("utf-8", "replace") if length <= len(body) - 64 else ""


def floor_gas(data: bytes) -> int:
    """The least gas that a transaction with this calldata pays (EIP-7623)."""
    zeros = data.count(0)
    return 21_000 + 10 * (zeros + 4 * (len(data) - zeros))


def machine(evm: Evm, header: Header) -> Vm:
    """What `call` and `estimate` run on: the state and the context of `header`, with free gas.

    One machine serves any number of calls, and is quicker for having read the state before.
    """
    return evm.get_vm(header.copy(base_fee_per_gas=0))


def call(vm: Vm, request: Request) -> bytes:
    """What the call returns on the state of `vm` and in its block; nobody pays for gas, and nothing stays changed.

    Raises:
        Reverted: the contract reverted.
        TransactionFailed: it failed otherwise, or the sender cannot pay the value.
    """
    return _checked(_run(vm, request, _cap(vm, request)))


def estimate(vm: Vm, request: Request) -> int:
    """The gas limit with which the transaction succeeds, within 2 % above the least.

    A transaction needs more than it uses: a call keeps back 1/64 of the gas, and refunds come last. The search is
    geth's: try the maximum, guess from what that used, then halve.

    Raises:
        Reverted: the contract reverted.
        TransactionFailed: it fails with any gas, or the sender cannot pay the value.
    """
    high = _cap(vm, request)
    computation = _run(vm, request, high)
    _checked(computation)
    spent = high - computation.get_gas_remaining()  # refunds, which come last, do not lower what is needed
    low = max(spent, floor_gas(request.data)) - 1
    guess = max((spent + _STIPEND) * 64 // 63, floor_gas(request.data))
    while low + 1 < high:
        middle = guess if low < guess < high else min((low + high) // 2, low * 2)
        guess = 0
        if _succeeds(vm, request, middle):
            high = middle
        else:
            low = middle
        if (high - low) / high < _ESTIMATE_ERROR:
            break
    return high


def _cap(vm: Vm, request: Request) -> int:
    return min(int(vm.get_header().gas_limit), CALL_GAS, request.gas or CALL_GAS)


def _succeeds(vm: Vm, request: Request, gas: int) -> bool:
    try:
        return bool(_run(vm, request, gas).is_success)
    except TransactionFailed:
        return False


def _checked(computation: Computation) -> bytes:
    if computation.is_error:
        if isinstance(computation.error, Revert):
            raise Reverted(bytes(computation.output))
        # "out of gas" and its like: py-evm's class names say it in one word, its messages are long
        words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(computation.error).__name__)
        raise TransactionFailed(f"execution failed:{words}")
    return bytes(computation.output)


def _run(vm: Vm, request: Request, gas: int) -> Computation:
    state = vm.state
    unsigned = vm.create_unsigned_transaction(
        nonce=state.get_nonce(request.sender),
        gas_price=0,
        gas=gas,
        to=request.to,
        value=request.value,
        data=request.data,
    )
    transaction = SpoofTransaction(unsigned, from_=request.sender)
    if gas < transaction.intrinsic_gas:
        raise TransactionFailed(f"intrinsic gas too low: {gas} is below {transaction.intrinsic_gas}")
    if state.get_balance(request.sender) < request.value:
        raise TransactionFailed("insufficient funds for transfer", "give the sender ether first")
    before = state.snapshot()
    try:
        return state.apply_transaction(transaction)
    except ValidationError as error:
        raise TransactionFailed(str(error)) from error
    finally:
        state.revert(before)
