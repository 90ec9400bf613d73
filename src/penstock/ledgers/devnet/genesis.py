"""How a devnet begins: funded accounts, and one block that deploys the contracts and hands out test euros.

The deployer's transactions are the same every time, so the contracts' addresses follow from its key alone, and a
devnet that was stopped before that block, or has not all of the contracts, is completed when it starts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eth._utils.address import generate_contract_address
from eth_keys.datatypes import PrivateKey

from penstock.core.errors import LedgerError, UsageError
from penstock.core.identity import Address, keccak, to_hex
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.chain import DEFAULT_CHAIN_ID, Chain
from penstock.ledgers.devnet.manifest import MAX_ACCOUNTS, deployer_key, dev_key
from penstock.ledgers.devnet.rules import INITIAL_BASE_FEE, DevnetVM

DEFAULT_ACCOUNTS = 20
ETHER = 10**18  # wei
ACCOUNT_ETHER = 1_000 * ETHER  # what each account gets
ACCOUNT_EUROS = 100_000 * 10**6  # cEUR units (6 decimals)
DEPLOYER_ETHER = 1_000_000 * ETHER
MINT_ROWS = 200  # holders in one mint transaction
_DEPLOY_GAS = 10_000_000
_MAX_FEE = 1_000 * INITIAL_BASE_FEE  # wei a gas: an older devnet that is completed may have just had full blocks
_MINT_GAS_ROW, _MINT_GAS_BASE = 40_000, 60_000


class Founded(NamedTuple):
    """A running chain, its contracts (name -> address) and its funded accounts."""

    chain: Chain
    contracts: dict[str, str]
    accounts: tuple[str, ...]


class _Step(NamedTuple):
    """A transaction of the deployer; a `name` marks the contract that it makes."""

    data: bytes
    gas: int
    to: bytes = b""
    name: str = ""


def found(directory: Path | None = None, chain_id: int = DEFAULT_CHAIN_ID, accounts: int = DEFAULT_ACCOUNTS) -> Founded:
    """Begin a devnet with `accounts` funded keys, or go on with the one in `directory` (and its accounts).

    Raises:
        UsageError: too many accounts, the directory cannot be used, or it holds another chain.
        LedgerError: the contracts do not deploy, or the disk is full.
    """
    if not 1 <= accounts <= MAX_ACCOUNTS:
        raise UsageError(f"a devnet has 1..{MAX_ACCOUNTS} funded accounts, not {accounts}")
    deployer = deployer_key()
    funded: dict[bytes, int] = {dev_key(index).address: ACCOUNT_ETHER for index in range(accounts)}
    chain = Chain({**funded, deployer.address: DEPLOYER_ETHER}, chain_id=chain_id, directory=directory)
    try:
        owners = _owners(chain)
        steps = _steps(owners)
        if chain.nonce(deployer.address) < len(steps):
            _deploy(chain, steps)
    except BaseException:
        chain.close()
        raise
    contracts = {step.name: to_hex(_made_at(nonce)) for nonce, step in enumerate(steps) if step.name}
    return Founded(chain, contracts, tuple(map(to_hex, owners)))


def _owners(chain: Chain) -> list[Address]:
    """The accounts that genesis funded, in the order of their keys."""
    owners: list[Address] = []
    while len(owners) < MAX_ACCOUNTS and chain.balance(address := dev_key(len(owners)).address, 0):
        owners.append(address)
    return owners


def _steps(owners: Sequence[Address]) -> list[_Step]:
    euro, ether = _made_at(0), _made_at(1)
    channel = _code("Channel")
    steps = [
        _Step(_code("CryptoEuro"), _DEPLOY_GAS, name="CryptoEuro"),
        _Step(_code("WrappedEther"), _DEPLOY_GAS, name="WrappedEther"),
        _Step(channel + euro.rjust(32, b"\0"), _DEPLOY_GAS, name="CryptoEuroChannel"),
        _Step(channel + ether.rjust(32, b"\0"), _DEPLOY_GAS, name="WrappedEtherChannel"),
    ]
    for first in range(0, len(owners), MINT_ROWS):
        rows = owners[first : first + MINT_ROWS]
        steps.append(_Step(_mint(rows), _MINT_GAS_BASE + _MINT_GAS_ROW * len(rows), to=euro))
    # Last: an older devnet gets them when it is started again, and nothing in it moves.
    escrow = _code("Escrow")
    for token, name in ((euro, "CryptoEuroEscrow"), (ether, "WrappedEtherEscrow")):
        steps.append(_Step(escrow + token.rjust(32, b"\0"), _DEPLOY_GAS, name=name))
    return steps


def _made_at(nonce: int) -> Address:
    return Address(bytes(generate_contract_address(deployer_key().address, nonce)))  # type: ignore[arg-type]  # py-evm's own Address


def _code(name: str) -> bytes:
    return bytes.fromhex(load(name)["bytecode"].removeprefix("0x"))


def _mint(holders: Sequence[Address]) -> bytes:
    """Calldata of CryptoEuro.mint(address[], uint256)."""
    words = [64, ACCOUNT_EUROS, len(holders)]
    return (
        keccak(b"mint(address[],uint256)")[:4]
        + b"".join(word.to_bytes(32, "big") for word in words)
        + b"".join(holder.rjust(32, b"\0") for holder in holders)
    )


def _deploy(chain: Chain, steps: Sequence[_Step]) -> None:
    """Mine the deployer's steps from its next nonce on, all in one block where they fit."""
    deployer = deployer_key()
    builder = DevnetVM.get_transaction_builder()
    sent = []
    for nonce in range(chain.nonce(deployer.address), len(steps)):
        step = steps[nonce]
        unsigned = builder.new_unsigned_dynamic_fee_transaction(  # type: ignore[attr-defined]  # London's and later
            chain_id=chain.chain_id,
            nonce=nonce,
            max_priority_fee_per_gas=0,
            max_fee_per_gas=_MAX_FEE,
            gas=step.gas,
            to=step.to,
            value=0,
            data=step.data,
            access_list=(),
        )
        sent.append(chain.submit(unsigned.as_signed_transaction(PrivateKey(deployer.secret)).encode()))
    chain.mine_waiting()
    for step, tx_hash in zip(steps[-len(sent) :], sent, strict=True):
        receipt = chain.receipt(tx_hash)
        if receipt is None or receipt["status"] != "0x1":
            raise LedgerError(f"the devnet's {step.name or 'mint'} transaction fails", "reinstall penstock")
