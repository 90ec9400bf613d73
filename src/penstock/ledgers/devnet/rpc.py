"""The methods of the devnet's JSON-RPC, each on a chain that one thread uses.

Source of names and forms: the Ethereum execution API specification; `evm_*` are the test controls of Ganache, which
Hardhat and Anvil kept.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.errors import LedgerError, TransactionFailed
from penstock.core.identity import keccak
from penstock.ledgers.devnet import params
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.execute import Reverted
from penstock.ledgers.devnet.forms import Form, data, header_form
from penstock.ledgers.devnet.params import BadParams

CLIENT = "penstock-devnet/1"
TIP = 10**9  # wei a gas that we suggest, as Anvil does
MAX_HISTORY = 1_024  # blocks in one eth_feeHistory, geth's bound
METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL, REFUSED, REVERTED = -32601, -32602, -32603, -32000, 3

_log = logging.getLogger(__name__)


class Rpc:
    """Answers one request at a time. `automine`: a submission is mined at once (by whoever calls `answer`)."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.automine = True
        self._methods: dict[str, tuple[Callable[..., Any], int, int]] = {}
        for name, method in inspect.getmembers(self, inspect.ismethod):
            if name.startswith(("eth_", "net_", "web3_", "evm_")):
                arguments = inspect.signature(method).parameters.values()
                needed = sum(argument.default is argument.empty for argument in arguments)
                self._methods[name] = (method, needed, len(arguments))

    def answer(self, method: str, given: object) -> Form:
        """The `result` or `error` member of the response to a method with its parameters; never raises."""
        try:
            return {"result": self._call(method, given)}
        except Reverted as error:
            return _error(REVERTED, str(error), data(error.data))
        except BadParams as error:
            return _error(INVALID_PARAMS, str(error))
        except _NoMethod as error:
            return _error(METHOD_NOT_FOUND, str(error))
        except (TransactionFailed, LedgerError) as error:
            return _error(REFUSED, str(error))
        except Exception:
            _log.exception("%s failed", method)
            return _error(INTERNAL, f"internal error in {method}; the devnet's log has it")

    def _call(self, method: str, given: object) -> object:
        found = self._methods.get(method)
        if found is None:
            raise _NoMethod(f"the method {method[:60]} does not exist here")
        run, needed, most = found
        values = [] if given is None else given
        if not isinstance(values, list):
            raise BadParams("params must be a list")
        while len(values) > most and values[-1] is None:
            values = values[:-1]
        if not needed <= len(values) <= most:
            raise BadParams(f"{method} takes {needed if needed == most else f'{needed} to {most}'} parameters")
        return run(*values)

    # The node

    def web3_clientVersion(self) -> str:  # noqa: N802 - the wire's own names from here on
        return CLIENT

    def web3_sha3(self, value: object) -> str:
        return data(keccak(params.data(value, "data")))

    def net_version(self) -> str:
        return str(self.chain.chain_id)

    def net_listening(self) -> bool:
        return True

    def eth_chainId(self) -> str:  # noqa: N802
        return hex(self.chain.chain_id)

    def eth_syncing(self) -> bool:
        return False

    def eth_accounts(self) -> list[str]:
        return []

    # Blocks

    def eth_blockNumber(self) -> str:  # noqa: N802
        return hex(self.chain.head.block_number)

    def eth_getBlockByNumber(self, block: object, full: object = False) -> Form | None:  # noqa: N802
        if block == "pending":
            header = header_form(self.chain.next_header())
            return {**header, "hash": None, "nonce": None, "size": "0x0", "transactions": []}
        number = params.block_number(self.chain, block)
        return self._block(int(self.chain.head.block_number) if number is None else number, full)

    def eth_getBlockByHash(self, block_hash: object, full: object = False) -> Form | None:  # noqa: N802
        number = self.chain.store.number_of(params.data(block_hash, "block hash", 32))
        return None if number is None else self._block(number, full)

    def eth_getBlockReceipts(self, block: object) -> list[msgspec.Raw] | None:  # noqa: N802
        number = params.block_number(self.chain, block)
        number = int(self.chain.head.block_number) if number is None else number
        return None if number > self.chain.head.block_number else _raws(self.chain.store.receipts(number))

    def _block(self, number: int, full: object) -> Form | None:
        form = self.chain.store.block(number)
        if form is None:
            return None
        store = self.chain.store
        inside = _raws(store.transactions(number)) if full is True else [data(h) for h in store.hashes(number)]
        return {**msgspec.json.decode(form), "transactions": inside}

    # Accounts

    def eth_getBalance(self, address: object, block: object = "latest") -> str:  # noqa: N802
        return hex(self.chain.balance(params.data(address, "address", 20), params.known_block(self.chain, block)))

    def eth_getCode(self, address: object, block: object = "latest") -> str:  # noqa: N802
        return data(self.chain.code(params.data(address, "address", 20), params.known_block(self.chain, block)))

    def eth_getStorageAt(self, address: object, slot: object, block: object = "latest") -> str:  # noqa: N802
        at, where = params.quantity(slot, "slot"), params.data(address, "address", 20)
        return f"0x{self.chain.storage(where, at, params.known_block(self.chain, block)):064x}"

    def eth_getTransactionCount(self, address: object, block: object = "latest") -> str:  # noqa: N802
        owner = params.data(address, "address", 20)
        if block == "pending":
            return hex(self.chain.pending_nonce(owner))
        return hex(self.chain.nonce(owner, params.known_block(self.chain, block)))

    # Transactions

    def eth_sendRawTransaction(self, raw: object) -> str:  # noqa: N802
        return data(self.chain.submit(params.data(raw, "transaction")))

    def eth_call(self, call: object, block: object = "latest") -> str:
        return data(self.chain.call(params.request(call), params.known_block(self.chain, block)))

    def eth_estimateGas(self, call: object, block: object = "latest") -> str:  # noqa: N802
        return hex(self.chain.estimate(params.request(call), params.known_block(self.chain, block)))

    def eth_getTransactionByHash(self, tx_hash: object) -> msgspec.Raw | Form | None:  # noqa: N802
        wanted = params.data(tx_hash, "transaction hash", 32)
        mined = self.chain.store.transaction(wanted)
        return self.chain.waiting(wanted) if mined is None else msgspec.Raw(mined)

    def eth_getTransactionReceipt(self, tx_hash: object) -> msgspec.Raw | None:  # noqa: N802
        found = self.chain.store.receipt(params.data(tx_hash, "transaction hash", 32))
        return None if found is None else msgspec.Raw(found)

    def eth_getLogs(self, wanted: object) -> list[msgspec.Raw]:  # noqa: N802
        found = params.log_filter(self.chain, wanted)
        return _raws(self.chain.store.logs(found.first, found.last, found.addresses, found.topics))

    # Fees

    def eth_gasPrice(self) -> str:  # noqa: N802
        return hex(self.chain.next_header().base_fee_per_gas + TIP)

    def eth_maxPriorityFeePerGas(self) -> str:  # noqa: N802
        return hex(TIP)

    def eth_feeHistory(self, count: object, newest: object, percentiles: object = None) -> Form:  # noqa: N802
        blocks = params.number(count, "block count")
        shares = percentiles or []
        if not isinstance(shares, list) or not all(isinstance(p, int | float) and 0 <= p <= 100 for p in shares):
            raise BadParams("percentiles must be a list of numbers in 0..100")
        number = params.known_block(self.chain, newest)
        last = int(self.chain.head.block_number) if number is None else number
        first = max(0, last + 1 - min(blocks, MAX_HISTORY))
        headers = [self.chain.header(at) for at in range(first, last + 1)]
        after = self.chain.next_header() if last == self.chain.head.block_number else self.chain.header(last + 1)
        history: Form = {
            "oldestBlock": hex(first),
            "baseFeePerGas": [hex(header.base_fee_per_gas) for header in [*headers, after]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "baseFeePerBlobGas": ["0x1"] * (len(headers) + 1),
            "blobGasUsedRatio": [0.0] * len(headers),
        }
        if shares:
            history["reward"] = [self._rewards(header, shares) for header in headers]
        return history

    def _rewards(self, header: Any, shares: list[float]) -> list[str]:
        """The tips at the given percentiles of a block's gas."""
        paid = sorted(
            (int(receipt["effectiveGasPrice"], 16) - header.base_fee_per_gas, int(receipt["gasUsed"], 16))
            for receipt in map(msgspec.json.decode, self.chain.store.receipts(header.block_number))
        )
        rewards = []
        for share in shares:
            left, tip = header.gas_used * share / 100, 0
            for tip, gas in paid:  # noqa: B007 - the tip at which the gas is used up
                left -= gas
                if left <= 0:
                    break
            rewards.append(hex(tip))
        return rewards

    # Test controls

    def evm_mine(self, timestamp: object = None) -> str:
        if timestamp is not None:
            self.chain.set_next_timestamp(params.number(timestamp, "timestamp"))
        self.chain.mine()
        return "0x0"

    def evm_increaseTime(self, seconds: object) -> str:  # noqa: N802
        return hex(self.chain.increase_time(params.number(seconds, "seconds")))

    def evm_setNextBlockTimestamp(self, timestamp: object) -> str:  # noqa: N802
        wanted = params.number(timestamp, "timestamp")
        self.chain.set_next_timestamp(wanted)
        return hex(wanted)

    def evm_setAutomine(self, on: object) -> bool:  # noqa: N802
        if not isinstance(on, bool):
            raise BadParams("automine must be true or false")
        self.automine = on
        return True

    def evm_snapshot(self) -> str:
        return hex(self.chain.snapshot())

    def evm_revert(self, snapshot: object) -> bool:
        return self.chain.revert(params.number(snapshot, "snapshot"))


class _NoMethod(LedgerError):
    """A method that we do not serve (JSON-RPC -32601)."""


def _error(code: int, message: str, extra: str | None = None) -> Form:
    error: Form = {"code": code, "message": message}
    return {"error": error if extra is None else {**error, "data": extra}}


def _raws(forms: list[bytes]) -> list[msgspec.Raw]:
    return [msgspec.Raw(form) for form in forms]
