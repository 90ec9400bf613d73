"""The signature of an OCMF text: what is signed are the payload's bytes, as they came."""

from __future__ import annotations

import base64
import re
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, HashAlgorithm

from penstock.core.errors import BadReading
from penstock.gateways.ocmf.key import OcmfKey
from penstock.gateways.ocmf.strict import Number, read_object

MAX_TEXT = 65_536  # bytes; a record of a begin and an end takes some 800, one with a tariff text of 250 1,200

DEFAULT_ALGORITHM = "ECDSA-secp256r1-SHA256"
_CURVES = {  # table 22 of OCMF, under both names of the Brainpool curves, and secp521r1, which meters use besides
    "secp192r1": "secp192r1",
    "secp256k1": "secp256k1",
    "secp256r1": "secp256r1",
    "secp384r1": "secp384r1",
    "secp521r1": "secp521r1",
    "brainpool256r1": "brainpoolP256r1",
    "brainpoolP256r1": "brainpoolP256r1",
    "brainpool384r1": "brainpoolP384r1",
    "brainpoolP384r1": "brainpoolP384r1",
}
_HASHES: dict[str, HashAlgorithm] = {"SHA256": SHA256(), "SHA512": SHA512()}
_HEX = re.compile("([0-9A-F]{2})+|([0-9a-f]{2})+")  # of one case, so that one signature has one form
_HASH_SIZES = {32: "SHA-256", 48: "SHA-384", 64: "SHA-512"}


class Sections(NamedTuple):
    """An OCMF text in its parts: what is signed, and what the signature's JSON object says."""

    payload: bytes
    signature: dict[str, Any]


def sections(text: bytes) -> Sections:
    """Take an OCMF text apart: `OCMF|payload|signature`, without blanks around it.

    Raises:
        BadReading: it is no OCMF, or is not signed, or brings its own key.
    """
    if len(text) > MAX_TEXT:
        raise BadReading(f"a reading of {len(text)} bytes is no OCMF: {MAX_TEXT} are the most")
    head, *parts = text.split(b"|")
    if head != b"OCMF" or not parts:
        raise BadReading("that is no OCMF", "a reading begins with OCMF|")
    if len(parts) == 1 or (len(parts) == 2 and not parts[1].strip()):
        raise BadReading("the reading is unsigned: it has no signature section")
    if len(parts) > 2:
        raise BadReading("the reading has more than two sections", "a key that comes with a reading proves nothing")
    return Sections(parts[0], read_object(utf8(parts[1], "signature"), "signature"))


def utf8(data: bytes, what: str) -> str:
    """The text that `data` is.

    Raises:
        BadReading: it is no UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadReading(f"the reading's {what} is no UTF-8") from None


def check(found: Sections, key: OcmfKey) -> None:
    """Pass where the signature is that of `key`'s meter over the payload, in its one form.

    Its s may lie in the upper half of the group's order, as genuine ones do: one payload can have two signatures, so
    a payload is what tells two readings apart, never a signature.

    Raises:
        BadReading: another algorithm or encoding than OCMF has, no canonical DER, or not by that key.
    """
    curve, hash_ = _algorithm(found.signature.get("SA", DEFAULT_ALGORITHM))
    if curve != key.curve:
        raise BadReading(f"the reading is signed by another meter: on {curve}, and the meter's key is on {key.curve}")
    kind = found.signature.get("SM", "application/x-der")
    if kind != "application/x-der":
        raise BadReading(f"the reading's signature is of a kind that OCMF does not have: {_shown(kind)}")
    signature = _decoded(found.signature.get("SD"), found.signature.get("SE", "hex"))
    _check_der(signature)
    try:
        key.public.verify(signature, found.payload, ECDSA(hash_))
    except InvalidSignature:
        raise BadReading("the reading is forged, or another meter's: its signature is not by the meter's key") from None


def _algorithm(name: object) -> tuple[str, HashAlgorithm]:
    words = name.split("-") if isinstance(name, str) else []
    if len(words) == 3 and words[0] == "ECDSA" and words[1] in _CURVES and words[2] in _HASHES:
        return _CURVES[words[1]], _HASHES[words[2]]
    raise BadReading(f"the reading is signed by an algorithm that is not checked here: {_shown(name)}")


def _decoded(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise BadReading("the reading is unsigned: its signature is empty")
    if encoding == "hex" and _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if encoding == "base64" and (data := _base64(text)):
        return data
    if encoding in ("hex", "base64"):
        raise BadReading(f"the reading's signature is not written in {encoding}")
    raise BadReading(f"the reading's signature is encoded in no way that OCMF has: {_shown(encoding)}")


def _base64(text: str) -> bytes:
    """The bytes of canonical base64, without unused bits that are set; none where it is anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return data if base64.b64encode(data).decode() == text else b""


def _check_der(signature: bytes) -> None:
    """Pass where it is the one DER form of two numbers (X.690, section 10), with nothing behind it.

    Raises:
        BadReading: it is not.
    """
    try:
        if encode_dss_signature(*decode_dss_signature(signature)) == signature:
            return
    except ValueError:
        pass
    if len(signature) in _HASH_SIZES:
        bare = f"it has the {len(signature)} bytes of a bare {_HASH_SIZES[len(signature)]}"
        raise BadReading(f"the reading is unsigned: its signature is none; {bare}, which anybody can compute")
    raise BadReading("the reading's signature is not in canonical DER")


def _shown(value: object) -> str:
    return value.literal[:40] if isinstance(value, Number) else repr(value)[:40]
