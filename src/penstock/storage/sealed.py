"""A file under a passphrase that two people share: what one hands to another to keep for it.

    key        = scrypt(passphrase, salt, n, r = 8, p = 1)                          32 bytes
    ciphertext = AES-256-GCM(key, nonce, content, header)

The header is the file's JSON without the ciphertext; it names the purpose, so that no file passes for another. The file
is replaced whole or not at all.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.core.errors import UsageError
from penstock.storage.keystore import LIGHT, STRONG, scrypt

MAX_FILE = 2**26  # bytes: some hundred thousand vouchers


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    penstock: str
    version: int
    n: int
    salt: str
    nonce: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    header: _Header
    ciphertext: str


def seal(path: Path, purpose: str, passphrase: str, content: bytes, cost: int = STRONG) -> None:
    """Put `content` into the file, readable with the passphrase only. A file that is there is replaced.

    Raises:
        UsageError: it cannot be written; what was there before is untouched.
    """
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    header = _Header(purpose, 1, cost, salt.hex(), nonce.hex())
    sealed = AESGCM(scrypt(passphrase, salt, cost, 8, 1)).encrypt(nonce, content, msgspec.json.encode(header))
    document = msgspec.json.encode(_File(header, base64.b64encode(sealed).decode()))
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(document + b"\n")
                file.flush()
                os.fsync(descriptor)
            fresh.replace(path)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "choose a directory of yours") from None


def unseal(path: Path, purpose: str, passphrase: str) -> bytes:
    """The content of a file that was sealed for this purpose.

    Raises:
        UsageError: it cannot be read, is no such file, or the passphrase is another.
    """
    try:
        with path.open("rb") as stream:
            document = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check the name, its owner and its mode") from None
    if len(document) > MAX_FILE:
        raise _malformed(path, purpose, f"it has more than {MAX_FILE} bytes")
    try:
        file = msgspec.json.decode(document, type=_File)
        header = file.header
        salt, nonce = bytes.fromhex(header.salt), bytes.fromhex(header.nonce)
        sealed = base64.b64decode(file.ciphertext, validate=True)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, purpose, " ".join(str(error).split())[:120]) from None
    if (header.penstock, header.version) != (purpose, 1):
        raise _malformed(path, purpose, f"it is version {header.version} of a {header.penstock[:40]!r}")
    if header.n not in (LIGHT, STRONG) or len(salt) != 32 or len(nonce) != 12:
        raise _malformed(path, purpose, "its encryption is not ours")
    try:
        return AESGCM(scrypt(passphrase, salt, header.n, 8, 1)).decrypt(nonce, sealed, msgspec.json.encode(header))
    except InvalidTag:
        raise UsageError(f"the passphrase does not open {path}", "use the one that it was sealed with") from None


def _malformed(path: Path, purpose: str, what: str) -> UsageError:
    return UsageError(f"{path} is no {purpose} file that we can read ({what})", "ask for it again")
