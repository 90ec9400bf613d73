"""The certificate of this process, and the TLS contexts that present it.

A certificate proves nothing here: identity is proven above TLS, by signatures over the hashes of both certificates
(`hello.py`, docs/adr/0002-link-identity.md). It is there so that both ends of one TLS connection hold a private key
which nobody in between has. Python's `ssl` can ask a client only for a certificate that chains to a known authority, so
there is one, and its private key is public on purpose: it is derived from the words below, and anybody may issue with
it.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

_AUTHORITY = "penstock link authority: its key is public on purpose"
_FROM = datetime(2000, 1, 1, tzinfo=UTC)  # a machine whose clock has stopped must still get a link
_UNTIL = datetime(9999, 12, 31, tzinfo=UTC)


class Contexts(NamedTuple):
    """TLS contexts for both roles, and the SHA-256 of the DER certificate that they present (32 bytes)."""

    client: ssl.SSLContext
    server: ssl.SSLContext
    certificate_hash: bytes


@cache
def contexts() -> Contexts:
    """The contexts of this process; the first call makes its key and certificate (a few milliseconds)."""
    authority = ec.derive_private_key(int.from_bytes(sha256(_AUTHORITY.encode()).digest(), "big"), ec.SECP256R1())
    key = Ed25519PrivateKey.generate()  # OpenSSL keeps 2 kB less of the peer's certificate than with an elliptic curve
    anchor = _certificate(_AUTHORITY, authority.public_key(), authority)
    own = _certificate("penstock link", key.public_key(), authority)
    return Contexts(
        _context(ssl.PROTOCOL_TLS_CLIENT, anchor, own, key),
        _context(ssl.PROTOCOL_TLS_SERVER, anchor, own, key),
        sha256(own.public_bytes(serialization.Encoding.DER)).digest(),
    )


def _certificate(
    subject: str, key: ec.EllipticCurvePublicKey | Ed25519PublicKey, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate for `key` (RFC 5280), issued by the link authority."""
    is_authority = subject == _AUTHORITY
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(_AUTHORITY))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _context(protocol: int, anchor: x509.Certificate, own: x509.Certificate, key: Ed25519PrivateKey) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a machine is its key, not its name
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=anchor.public_bytes(serialization.Encoding.PEM).decode())
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # a resumed TLS session shows no certificate to sign over
    _load(context, own, key)
    return context


def _load(context: ssl.SSLContext, own: x509.Certificate, key: Ed25519PrivateKey) -> None:
    """`ssl` reads a key from a file only: it lies there for a moment, encrypted, where only we can read."""
    password = os.urandom(32).hex()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = os.path.join(folder, "link.pem")
        with open(path, "wb") as file:
            file.write(own.public_bytes(serialization.Encoding.PEM) + pem)
        context.load_cert_chain(path, password=password)
