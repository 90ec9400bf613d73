"""A meter's key: every form in which it is met is the same key, and nothing else is one."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.gateways.records import KEBA_KEY, der, private

from penstock.core.errors import OutOfRange
from penstock.gateways.ocmf import OcmfKey
from penstock.gateways.ocmf.key import CURVES

DER = bytes.fromhex(KEBA_KEY)


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


PEM = f"-----BEGIN PUBLIC KEY-----\n{b64(DER)}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "text",
    [
        KEBA_KEY,
        KEBA_KEY.lower(),
        f"  {KEBA_KEY[:40]}\n {KEBA_KEY[40:]}\n",
        "0x" + KEBA_KEY,
        ":".join(KEBA_KEY[at : at + 2] for at in range(0, len(KEBA_KEY), 2)),
        b64(DER),
        b64(KEBA_KEY),
        f"oca:base16:asn1:{KEBA_KEY}",
        f"OCA:BASE16:ASN1:{KEBA_KEY}",
        b64(f"oca:base16:asn1:{KEBA_KEY}"),
        f"oca:base64:asn1:{b64(DER)}",
        f"ocmf:{KEBA_KEY}",
        PEM,
        "the meter's key\n" + PEM,
    ],
)
def test_every_form_met_in_the_field_is_the_same_key(text: str) -> None:
    key = OcmfKey.parse(text)
    assert key.der == DER
    assert key.curve == "secp256r1"
    assert key == OcmfKey(DER)
    assert hash(key) == hash(OcmfKey(DER))
    assert OcmfKey.parse(str(key)) == key


@pytest.mark.parametrize("curve", CURVES)
def test_keys_on_every_curve_are_taken_and_fit_an_offer(curve: str) -> None:
    key = OcmfKey(der(curve))
    assert key.curve == curve
    assert OcmfKey.parse(str(key)) == key
    assert len(str(key)) <= 512


def test_two_keys_are_different() -> None:
    assert OcmfKey(der()) != OcmfKey(der(secret=4712))
    assert OcmfKey(der()) != der()


POINT = private().public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
SECRET = private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ocmf:",
        "oca:base16:asn1:",
        "no key",
        "é",
        "\ud800",
        KEBA_KEY[:-2],
        KEBA_KEY + "00",
        KEBA_KEY[:-1],
        POINT.hex(),
        b64(b64(b64(b64(KEBA_KEY)))),
        b64(DER)[:-4],
        SECRET,
        PEM.replace("MFkw", "MFkx"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ED25519.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex(),
        der("secp224r1").hex(),
        "30" * 3000,
    ],
)
def test_what_is_no_key_is_refused_in_one_line_with_advice(text: str) -> None:
    with pytest.raises(OutOfRange) as refused:
        OcmfKey.parse(text)
    assert refused.value.advice
    assert "\n" not in refused.value.line()
    assert KEBA_KEY[:20] not in refused.value.line()


def test_a_private_key_is_not_taken_for_a_public_one() -> None:
    with pytest.raises(OutOfRange, match="private key"):
        OcmfKey.parse(SECRET)


def test_terms_hold_the_canonical_form_alone() -> None:
    """A compressed point is the same key in other bytes: two signed terms would differ that mean the same."""
    public = private().public_key()
    compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), compressed) == public
    assert OcmfKey.parse((head + compressed).hex()).der == der()
    with pytest.raises(OutOfRange, match="canonical"):
        OcmfKey(head + compressed)
