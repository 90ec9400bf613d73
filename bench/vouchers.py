"""Signed vouchers a second: the payee's whole check, against libsecp256k1 alone and against the x402 package.

The payee's check is `StreamPayee.take` on a fold as it arrives in a session: decoded, held against every rule, its
locks and its EIP-712 digest hashed, its signer recovered, and the rows for the journal made. Bare verification is
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
from pathlib import Path
from typing import Any, NamedTuple

import coincurve
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import decode_part
from penstock.core.identity import Address, Digest, Key
from penstock.rails.stream import FOLD_EVERY, StreamPayee, StreamPayer, StreamTerms, VoucherNote

CHANNELS = 64
ROUNDS = 60
X402_A_ROUND = 16
TICK = 1_000  # token units
DEPOSIT = 10**12
KIND_VOUCHER = 2  # the first byte of such evidence

X402 = Path(__file__).parents[1] / ".venv" / "bench" / "bin" / "python"


class Stream(NamedTuple):
    """One channel's payee, and for each round the ticks that precede a voucher, and the voucher."""

    params: ChannelParams
    payer: Key
    payee: StreamPayee
    script: list[tuple[list[bytes], bytes]]


def _stream(index: int) -> Stream:
    payer, payee = Key((2 * index + 1).to_bytes(32, "big")), Key((2 * index + 2).to_bytes(32, "big"))
    domain = Domain(8453, Address(b"\x11" * 20), Address(b"\x22" * 20))
    params = ChannelParams(domain, payer.address, payee.address, payer.address, payee.address, 86_400, False, index)
    terms = StreamTerms(params, 0, 0, TICK)
    end = StreamPayer(terms, DEPOSIT, payer, bytes(32))
    script: list[tuple[list[bytes], bytes]] = []
    ticks: list[bytes] = []
    waiting = [end.open()]
    while len(script) <= ROUNDS:
        for evidence in waiting:
            if evidence.data[0] == KIND_VOUCHER:
                script.append((ticks, evidence.data))
                ticks = []
            else:
                ticks.append(evidence.data)
        waiting = [*end.pay(end.paid + FOLD_EVERY * TICK), *end.fold()]
    return Stream(params, payer, StreamPayee(terms, DEPOSIT), script)


def _product(streams: list[Stream], turn: int) -> float:
    """CPU seconds to take one voucher in every channel; the ticks before it are taken outside of that."""
    for stream in streams:
        for ticks in stream.script[turn][0]:
            stream.payee.take(ticks)
    work = [(stream.payee.take, stream.script[turn][1]) for stream in streams]
    began = time.process_time()
    for take, voucher in work:
        take(voucher)
    return time.process_time() - began


def _signed(streams: list[Stream], turn: int) -> list[tuple[coincurve.PublicKey, Digest, bytes]]:
    """The same vouchers as keys, digests and signatures."""
    signed = []
    for stream in streams:
        note = decode_part(stream.script[turn][1][1:], VoucherNote)
        key = coincurve.PrivateKey(stream.payer.secret).public_key
        signed.append((key, note.voucher.digest(stream.params), note.signature))
    return signed


def _verification(signed: list[tuple[coincurve.PublicKey, Digest, bytes]]) -> float:
    """CPU seconds to verify every signature by its known key."""
    work = [(key, digest, cdata_to_der(deserialize_compact(signature[:64]))) for key, digest, signature in signed]
    began = time.process_time()
    for key, digest, der in work:
        key.verify(der, digest, hasher=None)
    spent = time.process_time() - began
    assert all(key.verify(der, digest, hasher=None) for key, digest, der in work)
    return spent


def _recovery(signed: list[tuple[coincurve.PublicKey, Digest, bytes]]) -> float:
    """CPU seconds to recover the key of every signature."""
    work = [(signature[:64] + bytes((signature[64] - 27,)), digest) for _, digest, signature in signed]
    began = time.process_time()
    for signature, digest in work:
        coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    return time.process_time() - began


def run() -> dict[str, Any]:
    """{"vouchers_per_s", "secp256k1_verify_per_s", "x402_voucher_verify_per_s"}, and what recovery alone does.

    Raises:
        RuntimeError: the environment with x402 is not there, or is without coincurve.
    """
    if not X402.exists():
        raise RuntimeError("x402 is not installed: run `make .venv/bench/ready`")
    spent: dict[str, list[float]] = {"product": [], "verify": [], "recover": [], "x402": []}
    streams = [_stream(index) for index in range(CHANNELS)]
    signed = [_signed(streams, turn) for turn in range(ROUNDS)]
    gc.collect()
    gc.freeze()  # what was prepared is not the payee's garbage to look through
    command = [str(X402), str(Path(__file__).with_name("x402_vouchers.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as x402:
        assert x402.stdin is not None
        assert x402.stdout is not None
        against = json.loads(x402.stdout.readline())
        if against["secp256k1"] != "CoinCurveECCBackend":
            raise RuntimeError(f"x402 verifies by {against['secp256k1']}, not by coincurve")
        for turn in range(ROUNDS):
            spent["verify"].append(_verification(signed[turn]) / CHANNELS)
            spent["product"].append(_product(streams, turn) / CHANNELS)
            spent["recover"].append(_recovery(signed[turn]) / CHANNELS)
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
