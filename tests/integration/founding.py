"""The devnet's contracts and accounts on another chain, so that tests of the ledger run there unchanged."""

from __future__ import annotations

from penstock.core.identity import to_hex
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.genesis import ACCOUNT_ETHER, ACCOUNT_EUROS, DEPLOYER_ETHER
from penstock.ledgers.devnet.manifest import Manifest, deployer_key, dev_key

from ..contracts.world import deploy
from .anvil import Anvil


def found(anvil: Anvil, accounts: int = 10) -> Manifest:
    """Deploy what a devnet has on a node that is new, and give its first keys the same ether and euros."""
    deployer, owners = deployer_key(), [dev_key(index).address for index in range(accounts)]
    anvil.fund({deployer.address: DEPLOYER_ETHER, **dict.fromkeys(owners, ACCOUNT_ETHER)})
    euro, ether = (deploy(anvil, deployer, load(name)) for name in ("CryptoEuro", "WrappedEther"))
    channels = [deploy(anvil, deployer, load("Channel"), token.address) for token in (euro, ether)]
    euro.send(deployer, "mint", owners, ACCOUNT_EUROS)
    escrows = [deploy(anvil, deployer, load("Escrow"), token.address) for token in (euro, ether)]
    names = (
        *("CryptoEuro", "WrappedEther", "CryptoEuroChannel", "WrappedEtherChannel"),
        *("CryptoEuroEscrow", "WrappedEtherEscrow"),
    )
    addresses = [to_hex(contract.address) for contract in (euro, ether, *channels, *escrows)]
    return Manifest(anvil.url, anvil.chain_id, dict(zip(names, addresses, strict=True)), tuple(map(to_hex, owners)))
