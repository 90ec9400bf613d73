"""The voucher check of the x402 package, in a process of its own: the project does not carry that package.

Run by the Python of an environment that has it (`make bench` sets one up). For each line on its input, a number, it
checks as many vouchers and answers with the CPU seconds that took. A line of JSON before that says what is compared.

What is called is what an x402 server calls for each payment of its batch settlement: the EIP-712 digest of a cumulative
voucher and the recovery of its signer. State of the channel on chain, amounts and storage are left out, in its favour.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from importlib.metadata import version

from eth_account import Account
from eth_keys import KeyAPI
from x402.mechanisms.evm.batch_settlement.client.voucher import sign_voucher
from x402.mechanisms.evm.batch_settlement.facilitator.utils import verify_batch_settlement_voucher_typed_data
from x402.mechanisms.evm.signers import EthAccountSigner

CHAIN_ID = 8453
SAMPLES = 64


def main() -> None:
    account = Account.from_key(b"\x01" * 32)
    signer, channel = EthAccountSigner(account), "0x" + "c4" * 32
    vouchers = [sign_voucher(signer, channel, 1000 * (n + 1), f"eip155:{CHAIN_ID}") for n in range(SAMPLES)]
    payer = account.address

    def check(index: int) -> bool:
        voucher = vouchers[index % SAMPLES]
        return verify_batch_settlement_voucher_typed_data(
            None, voucher.channel_id, voucher.max_claimable_amount, payer, payer, voucher.signature, CHAIN_ID
        )

    assert all(check(index) for index in range(SAMPLES))
    assert not verify_batch_settlement_voucher_typed_data(
        None, channel, "999", payer, payer, vouchers[0].signature, CHAIN_ID
    )
    backend = type(KeyAPI().backend).__name__
    print(json.dumps({"x402": version("x402"), "secp256k1": backend}), flush=True)
    gc.freeze()
    for line in sys.stdin:
        began = time.process_time()
        for index in range(int(line)):
            check(index)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
