"""Targets: files that people write, get from others or carry about, and what they type.

A file is read from memory where its reader opens a `Path`, and from a RAM disk where it insists on a descriptor.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path, PosixPath
from typing import Any
from unittest.mock import patch

from tests.core import pair

from penstock.cli import config as configuration
from penstock.cli import opening as openings
from penstock.cli.output import printable
from penstock.core.channel import authorization_nonce
from penstock.core.codec import encode
from penstock.core.errors import DeviceError, OutOfRange, PenstockError
from penstock.core.identity import Digest, parse_address, to_hex
from penstock.core.medium import medium
from penstock.core.ports import Authorization, SignedOpen
from penstock.core.units import MAX_AMOUNT, Amount, format_decimal, parse_decimal
from penstock.ledgers.devnet.manifest import Manifest
from penstock.sim.charges import HEADER, MAX_ENERGY, MAX_POWER, power_w, read_charges
from penstock.sim.register import Register, _entry
from penstock.storage import keystore, sealed

PASSPHRASE = "open sesame"
PURPOSE = "penstock hand-over"
CHEAP = 4  # scrypt's n


class InMemory(PosixPath):
    """A path whose file is its content."""

    content: bytes

    def open(self, *_: Any, **__: Any) -> Any:
        return BytesIO(self.content)

    def read_bytes(self) -> bytes:
        return self.content

    def __truediv__(self, _: Any) -> InMemory:
        return self


def _file(data: bytes) -> InMemory:
    path = InMemory("/fuzzed/file")
    path.content = data
    return path


def config(data: bytes) -> None:
    """A configuration; what is in it fits the commands that take it."""
    found = configuration.load(_file(data))
    for endpoint in (found.supply.listen, found.consume.supplier):
        if endpoint is not None:
            assert 0 <= configuration.endpoint(endpoint)[1] <= 65_535
    if found.ledger.contract is not None:
        parse_address(found.ledger.contract)
    if found.supply.speed is not None:
        assert 0 < found.supply.speed <= 10**9
    for money in (found.supply.price, found.supply.tick, found.consume.budget, found.consume.deposit):
        if money is not None:
            with suppress(OutOfRange):  # what is too large is said once the token's decimals are known
                _money(money)
    for path in (found.key.passphrase_file, found.supply.line, found.consume.line):
        assert path is None or path.startswith("/")


def config_seeds() -> list[bytes]:
    """The example of the module's own docstring, in both columns, and the commonest mistakes."""
    left, right = [], []
    for line in (configuration.__doc__ or "").splitlines():
        if line.startswith("    "):
            left.append(line[4:46].rstrip())
            right.append(line[46:].rstrip())
    whole = "\n".join(["[ledger]", *left[1:], *right]).replace("0x...", "0x" + "1" * 40).encode()
    return [
        *(b"[" + section.strip() + b"\n" for section in whole.split(b"[")[1:]),
        b"[supply]\nprice = 0.4\n",
        b'supply.price = \'0.4\'\n[key]\nname = """a\nb"""\n',
        b"a = 1979-05-27\n",
    ]


def charges(data: bytes) -> None:
    """A CSV of sessions; each can be replayed."""
    found = read_charges(_file(data))
    assert len({charge.session_id for charge in found}) == len(found) > 0
    for charge in found:
        assert 0 < charge.energy_wh <= MAX_ENERGY
        assert 0 <= charge.plugged_in < charge.unplugged
        assert 0 < power_w(charge) <= MAX_POWER


def charges_seeds() -> list[bytes]:
    """One line, three lines, lines as another system ends them."""
    lines = [
        "S0004,CA-321,2019-03-01T07:35:00,2019-03-01T16:45:00,17366",
        "S0005,CA-322,2019-03-01T08:00:00,2019-03-02T00:00:00,1",
        "S0006,CA-321,1970-01-01T00:00:00,9999-12-31T23:59:59,1000000",
    ]
    return ["\n".join([HEADER, *some, ""]).encode() for some in (lines[:1], lines)] + [
        "\r\n".join([HEADER, *lines, ""]).encode()
    ]


@cache
def _ram() -> Path:
    """A directory in memory, where the machine has one; removed when Python ends."""
    directory = tempfile.mkdtemp(prefix="penstock-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def key(data: bytes) -> None:
    """A key file. Its derivation may cost little here, so that what it asks for is refused before it is done."""
    path = _ram() / "pole.json"
    _put(path, data)
    with (
        patch.object(keystore, "MAX_MEMORY", 2**14),
        patch.object(keystore, "MAX_WORK", 2**6),
        patch.object(keystore, "MAX_ROUNDS", 8),
    ):
        names = keystore.listing(_ram())
        found = keystore.load(_ram(), "pole", PASSPHRASE)
    assert names == [("pole", found.address, path)]


def _put(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, data)
    os.close(descriptor)


def key_seeds() -> list[bytes]:
    """A file of scrypt, as we make them, and one of PBKDF2, as other wallets do."""
    path = keystore.create(Path(tempfile.mkdtemp(dir=_ram())), "pole", PASSPHRASE, b"\x01" * 32, cost=CHEAP)
    ours = path.read_bytes()
    theirs = ours.replace(b'"kdf": "scrypt"', b'"kdf": "pbkdf2"').replace(
        b'"n": 4,\n      "r": 8,\n      "p": 1,', b'"c": 2, "prf": "hmac-sha256",'
    )
    path.unlink()
    path.parent.rmdir()
    return [ours, theirs]


def seal(data: bytes) -> None:
    """A sealed file; its scrypt is made cheap, its cipher is the real one."""
    with patch.object(sealed, "LIGHT", CHEAP), patch.object(sealed, "STRONG", CHEAP):
        assert sealed.unseal(_file(data), PURPOSE, PASSPHRASE) == b"kept"


def seal_seeds() -> list[bytes]:
    """A file of ours, and one for another purpose."""
    seeds = []
    for purpose in (PURPOSE, "penstock backup"):
        path = _ram() / "sealed"
        sealed.seal(path, purpose, PASSPHRASE, b"kept", cost=CHEAP)
        seeds.append(path.read_bytes())
        path.unlink()
    return seeds


def opening(data: bytes) -> None:
    """A signed opening that somebody hands us to send: what we would send can be made of it."""
    signed = openings._read(_file(data))
    said = signed.authorization
    authorization_nonce(signed.params, said.deposit, said.fee)
    assert 0 < said.deposit + said.fee <= MAX_AMOUNT
    assert len(signed.params.id) == 32


def opening_seeds() -> list[bytes]:
    """One as its opener hands it out."""
    said = Authorization(Amount(5), Amount(1), 0, 2**40, pair.CONSUMER.sign(Digest(bytes(32))))
    return [encode(SignedOpen(pair.PARAMS, said))]


def manifest(data: bytes) -> None:
    """A devnet's manifest."""
    found = Manifest.read(_file(data))
    assert found.line()


def manifest_seeds() -> list[bytes]:
    """One as a devnet writes it."""
    return [b'{"url":"http://127.0.0.1:8545","chain_id":31337,"contracts":{"Channel":"0x11"},"accounts":["0x22"]}']


@cache
def _line() -> Register:
    return Register(_ram() / "line", os.open(_ram() / "line", os.O_RDWR | os.O_CREAT))


def register(data: bytes) -> None:
    """A line's register; a slot is taken with its checksum only, and the newer one of two."""
    end = _line()
    os.pwrite(end._descriptor, data, 0)
    os.ftruncate(end._descriptor, len(data))
    raw = end._bytes()
    slots = [entry for entry in (_entry(raw, 64), _entry(raw, 128)) if entry is not None]
    if not slots:  # `read` would try a hundred times
        raise DeviceError("neither slot holds its checksum")
    assert end.read().sequence == max(entry.sequence for entry in slots) < 2**64


def register_seeds() -> list[bytes]:
    """A fresh register, and one that has counted."""
    path, seeds = _ram() / "fresh", []
    path.unlink(missing_ok=True)
    end = Register.write_end(path)
    seeds.append(path.read_bytes())
    for sequence in (2, 3):
        end.write(end.read().__class__(sequence, sequence * 100, 1_000_000, 6_600))
    seeds.append(path.read_bytes())
    end.close()
    path.unlink()
    return seeds


def typed(data: bytes) -> object:
    """What people type: sums, addresses, endpoints, media; and what a terminal is shown of a peer's words."""
    text = data.decode(errors="surrogateescape")
    assert printable(text).isprintable()
    outcomes = []
    for parse in (_money, _address, configuration.endpoint, medium):
        try:
            outcomes.append(str(parse(text) is None))
        except PenstockError as error:
            outcomes.append(type(error).__name__)
    return outcomes


def _money(text: str) -> None:
    """For a token of each usual number of decimals."""
    for decimals in (18, 6, 0):
        sum_ = parse_decimal(text, decimals)
        assert 0 <= sum_ <= MAX_AMOUNT
        assert parse_decimal(format_decimal(sum_, decimals), decimals) == sum_


def _address(text: str) -> None:
    assert parse_address(to_hex(parse_address(text))) == parse_address(text)


def typed_seeds() -> list[bytes]:
    """One of each."""
    return [
        b"0.40",
        b"1e6",
        b"-0",
        b"1_000.5",
        pair.CONSUMER.address.hex().encode(),
        b"[::1]:7411",
        b"pole:1",
        b"water",
    ]
