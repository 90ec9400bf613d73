"""py-evm under Prague rules, and the two places where a devnet differs from the main network.

- A block may carry its parent's timestamp: many blocks are made within one second, and chain time must not run ahead of
  the clock for it. (The main network makes one block in twelve seconds and can ask for strictly later times.)
- The gas limit is the same in every block, instead of drifting by votes.

There are no withdrawals and no beacon chain, so the system contracts of EIP-4788 and EIP-2935 stay empty.
"""

from __future__ import annotations

import os
import sys
from typing import Any, TypeAlias

# Must come before py-evm is imported: eth-hash picks the pure Python-ish backend otherwise, at six times the cost.
os.environ["ETH_HASH_BACKEND"] = "pysha3"

from eth.abc import BlockHeaderAPI
from eth.chains.base import MiningChain
from eth.vm.forks.prague import PragueVM
from rlp.codec import encode

# py-evm sets this to 100,000, and a C decoder that trusts it (json, msgspec) then overruns the stack on nested input.
# The deepest calls that GAS_LIMIT pays for (606, measured) take 3,650 frames.
sys.setrecursionlimit(8_000)

# py-evm types its interfaces too loosely for a strict check (optional fields that every block has, base classes without
# what every fork defines), so that its objects pass through us unchecked, under their names.
Evm: TypeAlias = Any  # eth.chains.base.MiningChain
Vm: TypeAlias = Any  # eth.abc.VirtualMachineAPI
Header: TypeAlias = Any  # eth.abc.BlockHeaderAPI
Block: TypeAlias = Any  # eth.abc.BlockAPI
Transaction: TypeAlias = Any  # eth.abc.SignedTransactionAPI
Receipt: TypeAlias = Any  # eth.abc.ReceiptAPI
Computation: TypeAlias = Any  # eth.abc.ComputationAPI

GAS_LIMIT = 100_000_000  # a block of some 1,300 channel openings; about three seconds of work here
INITIAL_BASE_FEE = 10**9  # wei, as on London's first block


class DevnetVM(PragueVM):
    """Prague, with equal timestamps allowed."""

    @classmethod
    def validate_header(cls, header: BlockHeaderAPI, parent_header: BlockHeaderAPI) -> None:
        if parent_header is not None and header.timestamp == parent_header.timestamp:
            header = header.copy(timestamp=header.timestamp + 1)
        super().validate_header(header, parent_header)


def evm_class(chain_id: int) -> Evm:
    """py-evm's chain class for a chain id."""
    return MiningChain.configure(__name__="DevnetEvm", vm_configuration=((0, DevnetVM),), chain_id=chain_id)


def next_header(evm: Evm, parent: Header, timestamp: int) -> Header:
    """The header of the block after `parent`, before any transaction: base fee by EIP-1559, fixed gas limit."""
    return evm.create_header_from_parent(parent).copy(timestamp=timestamp, gas_limit=parent.gas_limit)


def encoded(value: Header | Block) -> bytes:
    """A header or block in RLP, as its hash and its size are taken."""
    return bytes(encode(value))  # type: ignore[no-untyped-call]  # rlp carries no types
