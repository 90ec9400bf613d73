"""Keys, addresses and signatures: secp256k1 as Ethereum uses it, keccak-256.

A signature is 65 bytes `r || s || v`, v in {27, 28}, s in the lower half of the group order (EIP-2), r and s neither
zero nor above the order. Exactly this form is made, accepted here and accepted by the contracts: a payee must never
hold a signature that the ledger rejects. Nothing is signed but a digest that names its purpose.
"""

from __future__ import annotations

from typing import NewType

import coincurve
from eth_hash.backends.pysha3 import keccak256

from penstock.core.errors import BadSignature, OutOfRange

Address = NewType("Address", bytes)
"""20 bytes: an account, a contract, or the address of a plain signing key."""

Digest = NewType("Digest", bytes)
"""32 bytes that were hashed with their purpose in them."""

ZERO_ADDRESS = Address(bytes(20))
GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_ORDER = GROUP_ORDER // 2


def keccak(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not SHA3-256). 32 bytes."""
    return keccak256(data)  # 0.8 µs a call; pycryptodome, which eth-hash picks by itself, takes 5


def purpose_digest(purpose: str, *parts: bytes) -> Digest:
    """The digest of length-prefixed `parts` under a purpose such as "penstock/terms/1".

    keccak(keccak(purpose) || for each part: uint32 length, bytes). EIP-712 digests begin with 0x1901, so that the two
    families cannot meet but by a hash collision.
    """
    body = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return Digest(keccak(keccak(purpose.encode()) + body))


class Key:
    """A private key that signs digests. Its `repr` shows the address alone."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes.

        Raises:
            OutOfRange: not 32 bytes, zero, or not below the group order.
        """
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < GROUP_ORDER:
            raise OutOfRange("a private key is 32 bytes, above zero and below the order of secp256k1")
        self._key = coincurve.PrivateKey(secret)
        self.address = _address_of(self._key.public_key)

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for a keystore or a transaction signer."""
        return self._key.secret

    def sign(self, digest: Digest) -> bytes:
        """65 bytes over a 32-byte digest; deterministic (RFC 6979), low s."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes((raw[64] + 27,))

    def __repr__(self) -> str:
        return f"Key({to_hex(self.address)})"


def recover(digest: Digest, signature: bytes) -> Address:
    """The address whose key made `signature` over `digest`.

    Raises:
        BadSignature: not 65 bytes, v not 27 or 28, r or s zero or too large, s in the upper half, or no such point.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise BadSignature("a signature is 65 bytes and ends in 27 or 28")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if not (0 < r < GROUP_ORDER and 0 < s <= HALF_ORDER):
        raise BadSignature("a signature has r and s above zero, and s in the lower half of the group order")
    try:
        public = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes((signature[64] - 27,)), digest, hasher=None
        )
    except Exception as error:  # coincurve raises bare Exception for a point that is not there
        raise BadSignature("no key made this signature") from error
    return _address_of(public)


def check_signed(digest: Digest, signature: bytes, signer: Address, what: str) -> None:
    """Pass where `signature` is `signer`'s over `digest`.

    Raises:
        BadSignature: it is malformed or somebody else's; the message names `what`.
    """
    found = recover(digest, signature)
    if found != signer:
        raise BadSignature(f"{what} is signed by {to_hex(found)}, not by {to_hex(signer)}")


def to_hex(value: bytes) -> str:
    """0x and hexadecimal digits; an address with its EIP-55 checksum."""
    text = value.hex()
    if len(value) != 20:
        return "0x" + text
    marks = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(text, marks, strict=False))


def parse_address(text: str) -> Address:
    """An address from hexadecimal text.

    Raises:
        OutOfRange: not 0x and 40 digits, or in mixed case with a wrong EIP-55 checksum (a mistyped address).
    """
    digits = text.removeprefix("0x")
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    if len(value) != 20 or len(digits) != 40:
        raise OutOfRange(f"{text[:60]!r} is not an address: 0x and 40 hexadecimal digits")
    if digits not in (digits.lower(), digits.upper()) and to_hex(value) != "0x" + digits:
        raise OutOfRange(f"address {text} fails its checksum; a digit is mistyped")
    return Address(value)


def _address_of(public: coincurve.PublicKey) -> Address:
    return Address(keccak(public.format(compressed=False)[1:])[12:])
