"""Check an exported voucher without trusting whoever exported it, and say what it is worth.

penstock channel export 0x0fd512 --json > voucher.json
python examples/verify_voucher.py voucher.json
"""

import json
import sys
from hashlib import sha256

from eth_account import Account
from eth_account.messages import encode_typed_data

if len(sys.argv) != 2:
    sys.exit("usage: verify_voucher.py VOUCHER.json")
with open(sys.argv[1]) as file:
    voucher = json.load(file)

signable = encode_typed_data(full_message=voucher["typed_data"])
signer = Account.recover_message(signable, signature=voucher["signature"])
if signer != voucher["signer"]:
    sys.exit(f"signed by {signer}, not by {voucher['signer']}")

worth = voucher["typed_data"]["message"]["amount"]
for lock, proof in zip(voucher["locks"], voucher["proofs"], strict=False):  # a voucher without open ticks has no proof
    value = bytes.fromhex(proof["preimage"][2:])
    for _ in range(proof["count"]):
        value = sha256(value).digest()
    if "0x" + value.hex() != lock["root"]:
        sys.exit("the ticks do not hash to the lock's root")
    worth += proof["count"] * lock["tick_value"]

print(f"{signer} owes {worth} token units in channel {voucher['channel']}")
