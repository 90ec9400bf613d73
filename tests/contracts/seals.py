"""What was signed, and what words mean: how the law reads signatures, proofs and addresses."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.channel import ChannelParams, Lock, Voucher, compact
from penstock.core.identity import Address, Digest, Key
from penstock.sim.model import Proof, require

UINT16, UINT64, UINT96, UINT128, UINT160 = (2**bits - 1 for bits in (16, 64, 96, 128, 160))

Signature = Sequence[int]


class Seals:
    """Every signature that was made, and the trees that vouchers were signed over."""

    def __init__(self) -> None:
        self._signers: dict[tuple[bytes, int, int], Address] = {}
        self.made: dict[int | bytes, tuple[int, int]] = {}  # by the second word, and by both packed into bytes
        self.trees: dict[bytes, tuple[Lock, ...]] = {}

    def sign(self, key: Key, digest: Digest) -> tuple[int, int]:
        """A key's signature, as the contract takes it."""
        r, vs = compact(key.sign(digest))
        self._signers[digest, r, vs] = key.address
        self.made[vs] = r, vs
        return r, vs

    def pack(self, key: Key, digest: Digest) -> bytes:
        """A key's signature, as the contract takes an account's. 64 bytes."""
        r, vs = self.sign(key, digest)
        packed = r.to_bytes(32, "big") + vs.to_bytes(32, "big")
        self.made[packed] = r, vs
        return packed

    def check(self, digest: Digest, signature: Signature, signer: Address) -> None:
        """Pass where the signer made just this signature over just this."""
        r, vs = signature
        require(self._signers.get((digest, r, vs)) == signer)

    def locks(self, voucher: Voucher) -> tuple[Lock, ...]:
        """The locks under a voucher; none where nobody has ever made such a tree."""
        return self.trees.get(voucher.locks_root, ())


def address(word: int) -> Address:
    """A word as an address; one that is none stays recognisable by its length."""
    return Address(word.to_bytes(20 if word <= UINT160 else 32, "big"))


def keys(params: ChannelParams) -> tuple[Address, Address]:
    """Both voucher keys."""
    return params.opener_key, params.partner_key


def read_proofs(words: Sequence[bytes]) -> list[Proof]:
    """Proofs from the words that the contract takes."""
    proofs, at = [], 0
    while at < len(words):
        head = int.from_bytes(words[at], "big")
        depth, after = head >> 48 & 255, at + 3 + (head >> 48 & 255)
        require(after <= len(words) and depth <= 10)
        lock = Lock(words[at + 1], head >> 120 & UINT96, head >> 16 & UINT16, head >> 56 & UINT64)
        branch = tuple(words[at + 3 : after])
        proofs.append(Proof(head & UINT16, lock, head >> 32 & UINT16, words[at + 2], branch))
        at = after
    return proofs
