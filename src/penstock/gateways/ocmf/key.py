"""The public key of a meter that signs OCMF, in the forms in which it is printed, sent and kept."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from penstock.core.errors import OutOfRange

MAX_TEXT = 4096  # characters; the longest key (secp521r1) takes 316 hexadecimal digits
CURVES = (
    "secp192r1",
    "secp256k1",
    "secp256r1",
    "secp384r1",
    "secp521r1",
    "brainpoolP256r1",
    "brainpoolP384r1",
)

_ADVICE = "give the meter's public key as DER in hexadecimal digits, base64, or PEM"
_HEX = re.compile(r"(0[xX])?[0-9A-Fa-f:-]+")
_OCA = re.compile(r"oca:(base16|base64):asn1:", re.IGNORECASE)
_WRAPPINGS = 3  # base64 around "oca:base16:asn1:" around hexadecimal digits


class OcmfKey:
    """The public key of one meter. `der` is its canonical form, and what two keys are compared by.

    `der` is a SubjectPublicKeyInfo (RFC 5480) with a named curve and an uncompressed point: 91 bytes for secp256r1.
    `curve` is the curve's name, one of `CURVES`.
    """

    PREFIX: ClassVar[str] = "ocmf:"  # before the key, where an offer names the meter

    __slots__ = ("curve", "der", "public")

    def __init__(self, der: bytes) -> None:
        """Take a key as terms and journals have it.

        Raises:
            OutOfRange: it is no key on a curve of OCMF, or not in canonical form.
        """
        public = _load(load_der_public_key, der)
        self.public, self.curve = public, public.curve.name
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if self.der != der:
            raise OutOfRange("the meter's key is not in canonical DER", _ADVICE)

    @classmethod
    def parse(cls, text: str) -> OcmfKey:
        """A key as it is met in the field.

        That is PEM, or DER in hexadecimal digits or base64; either of these in base64 again, with the prefix
        `oca:base16:asn1:` of OCPP's application note, or with our own.

        Raises:
            OutOfRange: it is none of these, or no key on a curve of OCMF.
        """
        if len(text) > MAX_TEXT:
            raise OutOfRange("the meter's key is too long to be one", _ADVICE)
        if "PRIVATE KEY" in text:
            raise OutOfRange("that is a private key", "keep it secret, and give the public one")
        public = _load(load_pem_public_key, text) if "-----BEGIN" in text else _load(load_der_public_key, _der(text))
        return cls(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def __str__(self) -> str:
        """The key as an offer names its meter; `parse` reads it."""
        return self.PREFIX + self.der.hex()

    def __repr__(self) -> str:
        return f"OcmfKey({self.curve} {self.der.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OcmfKey) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)


def _der(text: str) -> bytes:
    text = "".join(text.split()).removeprefix(OcmfKey.PREFIX)
    for _ in range(_WRAPPINGS):
        named = _OCA.match(text)
        data = _decoded(text[named.end() :] if named else text)
        if not (data.isascii() and data.decode().isprintable()):  # as no DER is: it has zeros and lengths
            return data
        text = data.decode()
    raise _unread()


def _decoded(text: str) -> bytes:
    try:
        if _HEX.fullmatch(text):
            return bytes.fromhex(re.sub("^0[xX]|[:-]", "", text))
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _unread() from None


def _load(load: Callable[[bytes], object], data: bytes | str) -> EllipticCurvePublicKey:
    try:
        public = load(data.encode() if isinstance(data, str) else data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unread() from None
    if not isinstance(public, EllipticCurvePublicKey) or public.curve.name not in CURVES:
        raise OutOfRange("the meter's key is on no curve that is checked here", f"one of {', '.join(CURVES)}")
    return public


def _unread() -> OutOfRange:
    return OutOfRange("that is no public key of a meter", _ADVICE)
