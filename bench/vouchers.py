"""Signed vouchers a second: the payee's whole check, against libsecp256k1 alone and against the x402 package.

The payee's check is `StreamPayee.take` on a fold as it arrives in a session: decoded, held against every rule, its
locks and its EIP-712 digest hashed, its signer recovered, and the rows for the journal made; all of one session, one
after the other, the ticks between them left out. Bare verification is
`coincurve.PublicKey.verify` of the same signatures over the same digests by the known key, DER form and all. The payee
cannot do with that: it has to know that the contract, which recovers the signer with the recovery bit, recovers the
same one; so it recovers, too, which alone takes some 15% longer (`secp256k1_recover_per_s`, printed and not kept).

The three take turns in short rounds, and rates are medians of rounds by CPU time: none of it waits for anything.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import coincurve
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import decode_part
from penstock.core.identity import Address, Digest, Key
from penstock.rails.stream import FOLD_EVERY, StreamPayee, StreamPayer, StreamTerms, VoucherNote

ROUNDS = 16
A_ROUND = 512
X402_A_ROUND = 64
TICK = 1_000  # token units
DEPOSIT = 10**12

X402 = Path(__file__).parents[1] / ".venv" / "bench" / "bin" / "python"

PAYER, PAYEE = Key(b"\x01" * 32), Key(b"\x02" * 32)
DOMAIN = Domain(8453, Address(b"\x11" * 20), Address(b"\x22" * 20))
PARAMS = ChannelParams(DOMAIN, PAYER.address, PAYEE.address, PAYER.address, PAYEE.address, 86_400, False, 1)
TERMS = StreamTerms(PARAMS, 0, 0, TICK)


class Signed(NamedTuple):
    """What libsecp256k1 needs of a voucher, in its own forms."""

    digest: Digest
    der: bytes
    recoverable: bytes


def _vouchers(count: int) -> list[bytes]:
    """So many vouchers of one session as they travel: a chain's first one, and folds."""
    payer = StreamPayer(TERMS, DEPOSIT, PAYER, bytes(32))
    vouchers = [payer.open().data]
    while len(vouchers) < count:
        ticks = payer.pay(payer.paid + FOLD_EVERY * TICK)
        vouchers += [one.data for one in (*ticks, *payer.fold()) if one.rows]  # ticks bring no rows
    return vouchers[:count]


def _signed(voucher: bytes) -> Signed:
    note = decode_part(voucher[1:], VoucherNote)
    r_s = note.signature[:64]
    der = cdata_to_der(deserialize_compact(r_s))
    return Signed(note.voucher.digest(PARAMS), der, r_s + bytes((note.signature[64] - 27,)))


def _timed(work: Callable[..., object], items: list[tuple[Any, ...]]) -> float:
    """CPU seconds a call."""
    began = time.process_time()
    for item in items:
        work(*item)
    return (time.process_time() - began) / len(items)


def run() -> dict[str, Any]:
    """{"vouchers_per_s", "secp256k1_verify_per_s", "x402_voucher_verify_per_s"}, and what recovery alone does.

    Raises:
        RuntimeError: the environment with x402 is not there, or is without coincurve.
    """
    if not X402.exists():
        raise RuntimeError("x402 is not installed: run `make .venv/bench/ready`")
    spent: dict[str, list[float]] = {"product": [], "verify": [], "recover": [], "x402": []}
    key = coincurve.PrivateKey(PAYER.secret).public_key
    find = coincurve.PublicKey.from_signature_and_message
    vouchers = _vouchers(ROUNDS * A_ROUND)
    signed = [_signed(voucher) for voucher in vouchers]
    assert all(key.verify(one.der, one.digest, None) for one in signed)
    payee = StreamPayee(TERMS, DEPOSIT)
    gc.collect()
    gc.freeze()  # what was prepared is not the payee's garbage to look through
    command = [str(X402), str(Path(__file__).with_name("x402_vouchers.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as x402:
        assert x402.stdin is not None
        assert x402.stdout is not None
        against = json.loads(x402.stdout.readline())
        if against["secp256k1"] != "CoinCurveECCBackend":
            raise RuntimeError(f"x402 verifies by {against['secp256k1']}, not by coincurve")
        for start in range(0, len(vouchers), A_ROUND):
            turn, bare = vouchers[start : start + A_ROUND], signed[start : start + A_ROUND]
            spent["verify"].append(_timed(key.verify, [(one.der, one.digest, None) for one in bare]))
            spent["product"].append(_timed(payee.take, [(voucher,) for voucher in turn]))
            spent["recover"].append(_timed(find, [(one.recoverable, one.digest, None) for one in bare]))
            print(X402_A_ROUND, file=x402.stdin, flush=True)
            spent["x402"].append(float(x402.stdout.readline()) / X402_A_ROUND)
        x402.stdin.close()
    rate = {name: 1 / statistics.median(times) for name, times in spent.items()}
    return {
        "vouchers_per_s": rate["product"],
        "secp256k1_verify_per_s": rate["verify"],
        "x402_voucher_verify_per_s": rate["x402"],
        "secp256k1_recover_per_s": rate["recover"],
        **against,
    }


if __name__ == "__main__":
    print(run(), file=sys.stderr)
