"""Keys, addresses and signatures: secp256k1 as Ethereum uses it, keccak-256.

A signature is 65 bytes `r || s || v`, v in {27, 28}, s in the lower half of the group order (EIP-2), r and s neither
zero nor above the order. Exactly this form is made, accepted here and accepted by the contracts: a payee must never
hold a signature that the ledger rejects. Nothing is signed but a digest that names its purpose.
"""

from __future__ import annotations

from typing import Any, NewType

import coincurve
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]  # a C module without stubs
from coincurve.context import GLOBAL_CONTEXT
from sha3 import keccak_256

from penstock.core.errors import BadSignature, OutOfRange

Address = NewType("Address", bytes)
"""20 bytes: an account, a contract, or the address of a plain signing key."""

Digest = NewType("Digest", bytes)
"""32 bytes that were hashed with their purpose in them."""

ZERO_ADDRESS = Address(bytes(20))
GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_ORDER = GROUP_ORDER // 2

_HALF_ORDER = HALF_ORDER.to_bytes(32, "big")  # bytes of one length compare as the numbers do
_CONTEXT = GLOBAL_CONTEXT.ctx
_SIGNATURE = ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_KEY = ffi.typeof("secp256k1_pubkey *")
_parse, _find = lib.secp256k1_ecdsa_recoverable_signature_parse_compact, lib.secp256k1_ecdsa_recover


def keccak(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not SHA3-256). 32 bytes."""
    digest: bytes = keccak_256(data).digest()  # 0.8 µs; pycryptodome, which eth-hash picks by itself, takes 5
    return digest


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
    key = ffi.new(_KEY)
    _recover(digest, signature, ffi.new(_SIGNATURE), key)
    return _address_of(coincurve.PublicKey(key))


class Signer:
    """One address whose signatures are checked again and again, by one thread.

    Its first signature shows its public key. A key that is recovered later is compared with that one, which spares the
    hash that makes an address of it. Verifying by the known key would be 15% faster, and would not do: a signature with
    the wrong v passes there, and the contract, which recovers by it, would find somebody else.
    """

    __slots__ = ("_found", "_key", "_known", "_parsed", "address")

    def __init__(self, address: Address) -> None:
        self.address = address
        self._parsed, self._key = ffi.new(_SIGNATURE), ffi.new(_KEY)
        self._found, self._known = ffi.buffer(self._key), b""

    def check(self, digest: Digest, signature: bytes, what: str) -> None:
        """Pass where `signature` is this signer's over `digest`.

        Raises:
            BadSignature: it is malformed or somebody else's; the message names `what`.
        """
        _recover(digest, signature, self._parsed, self._key)
        if self._found != self._known:
            found = _address_of(coincurve.PublicKey(self._key))
            if found != self.address:
                raise BadSignature(f"{what} is signed by {to_hex(found)}, not by {to_hex(self.address)}")
            self._known = self._found[:]


def check_signed(digest: Digest, signature: bytes, signer: Address, what: str) -> None:
    """Pass where `signature` is `signer`'s over `digest`.

    Raises:
        BadSignature: it is malformed or somebody else's; the message names `what`.
    """
    Signer(signer).check(digest, signature, what)


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


def _recover(digest: Digest, signature: bytes, parsed: Any, key: Any) -> None:
    """Find the public key that made `signature`, in the buffers `parsed` and `key`.

    libsecp256k1 is called by coincurve's binding of it: coincurve's own call, which makes four objects, takes 3 µs more
    of 40.

    Raises:
        BadSignature: as `recover`.
    """
    if len(digest) != 32 or len(signature) != 65 or not 27 <= signature[64] <= 28:
        raise BadSignature("a signature is 65 bytes over 32, and ends in 27 or 28")
    if signature[32:64] > _HALF_ORDER:
        raise BadSignature("a signature has s in the lower half of the group order")
    if not (_parse(_CONTEXT, parsed, signature, signature[64] - 27) and _find(_CONTEXT, key, parsed, digest)):
        raise BadSignature("no key made this signature")  # r or s is zero or above the order, or r is no point's


def _address_of(public: coincurve.PublicKey) -> Address:
    return Address(keccak(public.format(compressed=False)[1:])[12:])
