"""Private keys in encrypted files that every Ethereum wallet reads: Web3 Secret Storage, version 3.

    https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage/

    derived    = scrypt(passphrase, salt, n, r, p) or PBKDF2-HMAC-SHA256(passphrase, salt, c)       32 bytes
    ciphertext = AES-128-CTR(key = derived[:16], counter = iv)(secret)                              32 bytes
    mac        = keccak(derived[16:32] || ciphertext)

A key called `pole` is `pole.json`, mode 0600, in a directory of mode 0700. It is written whole or not at all, and a
file that is there is never replaced. Files from elsewhere are read too, with derivations whose memory and time are
bounded, since a file chooses its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import uuid
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from penstock.core.errors import OutOfRange, UsageError
from penstock.core.identity import Address, Key, keccak, parse_address

STRONG = 2**18
"""scrypt's n for a key that guards money: 256 MiB and about a second."""

LIGHT = 2**12
"""scrypt's n for keys of a development chain: 4 MiB and some 10 ms."""

MAX_FILE = 16_384  # bytes; a key file has some 500
MAX_MEMORY = 2**28  # bytes: what STRONG takes, and with it every wallet that we know
MAX_WORK = 2**22  # n * r * p: twice that of STRONG
MAX_ROUNDS = 2**23  # of PBKDF2; wallets write 2**18

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SUFFIX = ".json"


class _Iv(msgspec.Struct):
    iv: str


class _Scrypt(msgspec.Struct):
    n: int
    r: int
    p: int
    salt: str
    dklen: int


class _Pbkdf2(msgspec.Struct):
    c: int
    prf: Literal["hmac-sha256"]
    salt: str
    dklen: int


class _Crypto(msgspec.Struct):
    cipher: Literal["aes-128-ctr"]
    cipherparams: _Iv
    ciphertext: str
    kdf: Literal["scrypt", "pbkdf2"]
    kdfparams: msgspec.Raw
    mac: str


class _File(msgspec.Struct):
    version: Literal[3]
    crypto: _Crypto
    address: str  # the standard leaves it out at will; wallets write it, and a listing needs it


def create(directory: Path, name: str, passphrase: str, secret: bytes, cost: int = STRONG) -> Path:
    """Encrypt `secret` (32 bytes) under `passphrase` into a new file, and return its path.

    `directory` is made if it is not there. `cost` is scrypt's n: `STRONG`, or `LIGHT` for keys that guard nothing.

    Raises:
        UsageError: the name or the passphrase is unfit, a key of that name exists, or the directory is unsafe or
            cannot be written. No file is left behind.
        OutOfRange: `secret` is no private key.
    """
    key = Key(secret)
    path = free(directory, name)
    if not passphrase:
        raise UsageError("the passphrase is empty", "choose one: it guards the key's money")
    salt, iv = secrets.token_bytes(32), secrets.token_bytes(16)
    derived = scrypt(passphrase, salt, cost, 8, 1)
    ciphertext = _aes(derived, iv, secret)
    document = {
        "version": 3,
        "id": str(uuid.uuid4()),
        "address": key.address.hex(),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": {"n": cost, "r": 8, "p": 1, "salt": salt.hex(), "dklen": 32},
            "mac": _mac(derived, ciphertext).hex(),
        },
    }
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(directory)
        _write(path, (json.dumps(document, indent=2) + "\n").encode())
    except FileExistsError:
        raise _taken(directory, name) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "choose a directory of yours") from None
    return path


def free(directory: Path, name: str) -> Path:
    """The file that a new key `name` will have.

    Raises:
        UsageError: the name is unfit, or a key of that name exists.
    """
    path = _path(directory, name)
    if os.path.lexists(path):
        raise _taken(directory, name)
    return path


def load(directory: Path, name: str, passphrase: str) -> Key:
    """The key `name`, decrypted.

    Raises:
        UsageError: the name is unfit, there is no such key, its file or the directory is unsafe or malformed, its
            derivation asks for too much, or the passphrase is wrong.
    """
    path = _path(directory, name)
    if not path.is_symlink() and not path.exists():
        known = ", ".join(found for found, _, _ in listing(directory)) or "none"
        raise UsageError(
            f"there is no key {name!r} in {directory} (there: {known})", f"make one: penstock key new {name}"
        )
    file = _read(path)
    ciphertext, mac = _hex(path, "ciphertext", file.crypto.ciphertext, 32), _hex(path, "mac", file.crypto.mac, 32)
    iv = _hex(path, "iv", file.crypto.cipherparams.iv, 16)
    derived = _derive(path, file.crypto, passphrase)
    if not hmac.compare_digest(_mac(derived, ciphertext), mac):
        raise UsageError(f"the passphrase does not open {path}", "try again; it cannot be recovered")
    try:
        key = Key(_aes(derived, iv, ciphertext))
    except OutOfRange:
        raise _malformed(path, "what it holds is no private key") from None
    if key.address != _address(path, file):
        raise _malformed(path, "its address is not that of the key inside")
    return key


def listing(directory: Path) -> list[tuple[str, Address, Path]]:
    """Name, address and file of every key in `directory`, by name. Nothing is decrypted; empty where there is none.

    Raises:
        UsageError: the directory cannot be read, or a file in it is unsafe or malformed.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == _SUFFIX and _NAME.fullmatch(path.stem))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {directory}: {error.strerror}", "name a directory of yours") from None
    return [(path.stem, _address(path, _read(path)), path) for path in paths]


def _path(directory: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:70]!r} is no name for a key", "use 1 to 64 letters, digits, - or _, a letter or digit first"
        )
    return directory / (name + _SUFFIX)


def _taken(directory: Path, name: str) -> UsageError:
    return UsageError(f"key {name!r} exists already in {directory}", "choose another name")


def _check_directory(directory: Path) -> None:
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{directory} is not a directory", "name another one for the keys")
    if found.st_uid != os.geteuid():
        raise UsageError(f"{directory} belongs to another user", "keep keys in a directory of yours")
    if found.st_mode & 0o077:
        raise UsageError(f"others can enter {directory}, which holds keys", f"run: chmod 700 {directory}")


def _write(path: Path, content: bytes) -> None:
    """Let `path` appear whole and durable, or raise and leave nothing. FileExistsError where it is there already."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.link(fresh, path)  # unlike a rename, it never replaces
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _read(path: Path) -> _File:
    try:
        _check_directory(path.parent)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise UsageError(f"{path} is a symbolic link", "put the key file itself there") from None
        raise UsageError(f"cannot read {path}: {error.strerror}", "check its owner and mode") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} is not a file", "put the key file itself there")
        if found.st_uid != os.geteuid():
            raise UsageError(f"{path} belongs to another user", "keep key files of yours only")
        if found.st_mode & 0o077:
            raise UsageError(f"others can read or write {path}", f"run: chmod 600 {path}")
        content = os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE:
        raise _malformed(path, f"it has more than {MAX_FILE} bytes")
    try:
        return msgspec.json.decode(content, type=_File)
    except (ValueError, RecursionError) as error:  # text that is no UTF-8, and lists in lists in lists, among others
        raise _malformed(path, " ".join(str(error).split())) from None


def _malformed(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is no key file that we can read ({what})", "restore it from a backup, or move it away")


def _hex(path: Path, what: str, text: str, size: int | None = None) -> bytes:
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise _malformed(path, f"{what} is not hexadecimal") from None
    if size is not None and len(value) != size:
        raise _malformed(path, f"{what} has {len(value)} bytes, not {size}")
    return value


def _address(path: Path, file: _File) -> Address:
    try:
        return parse_address(file.address)
    except OutOfRange as error:
        raise _malformed(path, str(error)) from None


def _derive(path: Path, crypto: _Crypto, passphrase: str) -> bytes:
    kind: type[_Scrypt | _Pbkdf2] = _Scrypt if crypto.kdf == "scrypt" else _Pbkdf2
    try:
        kdf = msgspec.json.decode(crypto.kdfparams, type=kind)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"kdfparams: {error}") from None
    if kdf.dklen != 32:
        raise _malformed(path, f"dklen is {kdf.dklen}, not 32")
    salt = _hex(path, "salt", kdf.salt)
    if isinstance(kdf, _Pbkdf2):
        if not 1 <= kdf.c <= MAX_ROUNDS:
            raise _malformed(path, f"{kdf.c} rounds of PBKDF2 are outside 1..{MAX_ROUNDS}")
        return hashlib.pbkdf2_hmac("sha256", _bytes(passphrase), salt, kdf.c, 32)
    n, r, p = kdf.n, kdf.r, kdf.p
    # RFC 7914, section 2: n a power of two above 1 and below 2**(128 * r / 8). OpenSSL holds to it, and so refuses the
    # old form n=2**18, r=1, p=8.
    if min(r, p) < 1 or n < 2 or n & (n - 1) or n.bit_length() > min(16 * r, 64):
        raise _malformed(path, f"scrypt does not take n={n}, r={r}, p={p}")
    if 128 * r * n > MAX_MEMORY or n * r * p > MAX_WORK:
        raise _malformed(path, f"scrypt with n={n}, r={r}, p={p} would take too much memory or time")
    return scrypt(passphrase, salt, n, r, p)


def scrypt(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """32 bytes from a passphrase (RFC 7914).

    Raises:
        UsageError: there is not enough memory.
    """
    memory = 128 * r * (n + p + 2)  # as OpenSSL counts it
    try:
        return hashlib.scrypt(_bytes(passphrase), salt=salt, n=n, r=r, p=p, maxmem=memory + 4096, dklen=32)
    except (ValueError, MemoryError):  # OpenSSL says "memory limit exceeded" when there is none left, too
        raise UsageError(
            f"the encryption needs {memory >> 20} MiB of memory, which is not there", "free some memory"
        ) from None


def _bytes(passphrase: str) -> bytes:
    return passphrase.encode(errors="surrogateescape")  # what a terminal sent that is no UTF-8 counts as it came


def _aes(derived: bytes, iv: bytes, data: bytes) -> bytes:
    """AES-128-CTR, which is its own inverse."""
    step = Cipher(algorithms.AES128(derived[:16]), modes.CTR(iv)).encryptor()
    return step.update(data) + step.finalize()


def _mac(derived: bytes, ciphertext: bytes) -> bytes:
    return keccak(derived[16:32] + ciphertext)
