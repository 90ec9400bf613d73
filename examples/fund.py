"""Give addresses on a devnet test euros and a little ether, from the devnet's first funded key.

    python examples/fund.py URL TOKEN ADDRESS...

It shows that a devnet is an ordinary chain: everything here is plain web3.py.
"""

from __future__ import annotations

import asyncio
import sys

from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.types import Nonce, TxParams, Wei

from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.manifest import dev_key

EUROS = 100 * 10**6  # token units
ETHER = 10**18  # wei


async def fund(url: str, token: str, owners: list[str]) -> None:
    """Send each of `owners` test euros and ether, and wait until they are mined."""
    web3 = AsyncWeb3(AsyncHTTPProvider(url))
    try:
        giver = Account.from_key(dev_key(0).secret)
        euro = web3.eth.contract(address=web3.to_checksum_address(token), abi=load("CryptoEuro")["abi"])
        for text in owners:
            owner = web3.to_checksum_address(text)
            nonce = await web3.eth.get_transaction_count(giver.address)
            common: TxParams = {
                "chainId": await web3.eth.chain_id,
                "maxFeePerGas": Wei(10**10),
                "maxPriorityFeePerGas": Wei(10**9),
            }
            ether: TxParams = {**common, "to": owner, "value": Wei(ETHER), "gas": 21_000, "nonce": nonce}
            transfer = euro.functions.transfer(owner, EUROS)
            euros = await transfer.build_transaction({**common, "from": giver.address, "nonce": Nonce(nonce + 1)})
            for transaction in (ether, euros):
                raw = giver.sign_transaction(transaction).raw_transaction
                receipt = await web3.eth.wait_for_transaction_receipt(await web3.eth.send_raw_transaction(raw))
                if receipt["status"] != 1:
                    sys.exit(f"the chain reverted a transfer to {owner}")
            print(f"{owner} has 100 cEUR and 1 ether more")
    finally:
        await web3.provider.disconnect()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python examples/fund.py URL TOKEN ADDRESS...")
    asyncio.run(fund(sys.argv[1], sys.argv[2], sys.argv[3:]))
