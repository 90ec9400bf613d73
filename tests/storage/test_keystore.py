"""Key files: what wallets exchange, what a wrong passphrase gets, and what a hostile file cannot do."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from penstock.core.errors import OutOfRange, UsageError
from penstock.core.identity import Key
from penstock.storage import keystore

SECRET = bytes(range(1, 33))
PASSPHRASE = "schlüssel & gate"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys"


def put(directory: Path, name: str, document: object) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(0o600)
    return path


def written(directory: Path, **kdfparams: Any) -> dict[str, Any]:
    """A good file's document, with fields of its derivation replaced."""
    path = keystore.create(directory, "source", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    document: dict[str, Any] = json.loads(path.read_bytes())
    path.unlink()
    document["crypto"]["kdfparams"].update(kdfparams)
    return document


def refusal(directory: Path, name: str = "pole", passphrase: str = PASSPHRASE) -> str:
    with pytest.raises(UsageError) as caught:
        keystore.load(directory, name, passphrase)
    assert caught.value.advice
    assert "\n" not in caught.value.line()
    return caught.value.line()


def test_a_key_comes_back_as_it_was_stored(keys: Path) -> None:
    path = keystore.create(keys, "pole", PASSPHRASE, SECRET)
    assert json.loads(path.read_bytes())["crypto"]["kdfparams"]["n"] == 2**18
    key = keystore.load(keys, "pole", PASSPHRASE)
    assert key.secret == SECRET
    assert key.address == Key(SECRET).address


def test_wallets_read_our_files(keys: Path) -> None:
    path = keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    assert bytes(Account.decrypt(path.read_text(), PASSPHRASE)) == SECRET


@pytest.mark.parametrize(("kdf", "iterations"), [("scrypt", 4096), ("pbkdf2", 1000)])
def test_we_read_the_files_of_wallets(keys: Path, kdf: Any, iterations: int) -> None:
    put(keys, "wallet", Account.encrypt(SECRET, PASSPHRASE, kdf=kdf, iterations=iterations))
    assert keystore.load(keys, "wallet", PASSPHRASE).secret == SECRET


def test_the_vector_of_the_standard_decrypts(keys: Path) -> None:
    """Web3 Secret Storage, section "Test vectors"; the address, which it leaves out, is that of its secret."""
    secret = bytes.fromhex("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d")
    address = Key(secret).address.hex()
    pbkdf2 = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    }
    put(keys, "rounds", {"version": 3, "address": address, "crypto": pbkdf2})
    assert keystore.load(keys, "rounds", "testpassword").secret == secret


def test_files_are_private_and_nothing_else_is_left(keys: Path) -> None:
    path = keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert list(keys.iterdir()) == [path]


def test_a_key_is_never_overwritten(keys: Path) -> None:
    path = keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        keystore.create(keys, "pole", PASSPHRASE, bytes(31) + b"\x01", cost=keystore.LIGHT)
    assert path.read_bytes() == before
    assert list(keys.iterdir()) == [path]


def test_a_wrong_passphrase_is_told(keys: Path) -> None:
    keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    assert "passphrase does not open" in refusal(keys, passphrase="wrong")


def test_a_passphrase_that_is_no_utf8_works(keys: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe pass")
    keystore.create(keys, "pole", odd, SECRET, cost=keystore.LIGHT)
    assert keystore.load(keys, "pole", odd).secret == SECRET


def test_an_empty_passphrase_is_refused(keys: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        keystore.create(keys, "pole", "", SECRET)
    assert not keys.exists()


def test_what_is_no_private_key_is_not_stored(keys: Path) -> None:
    with pytest.raises(OutOfRange):
        keystore.create(keys, "pole", PASSPHRASE, bytes(32))
    assert not keys.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../pole", "a/b", ".hidden", "pole.json", "a b", "-x", "ü", "a" * 65])
def test_a_name_cannot_leave_the_directory(keys: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a key"):
        keystore.create(keys, name, PASSPHRASE, SECRET)
    with pytest.raises(UsageError, match="no name for a key"):
        keystore.load(keys, name, PASSPHRASE)
    assert not keys.exists()


def test_a_missing_key_names_those_that_are_there(keys: Path) -> None:
    assert "there: none" in refusal(keys)
    keystore.create(keys, "car", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    line = refusal(keys)
    assert "there: car" in line
    assert "penstock key new pole" in line


def test_a_listing_reads_addresses_without_a_passphrase(keys: Path) -> None:
    assert keystore.listing(keys) == []
    secrets_of = {"pole": SECRET, "car": bytes(31) + b"\x02"}
    for name, secret in secrets_of.items():
        keystore.create(keys, name, PASSPHRASE, secret, cost=keystore.LIGHT)
    (keys / "notes.txt").write_text("not a key")
    assert keystore.listing(keys) == [
        (name, Key(secrets_of[name]).address, keys / f"{name}.json") for name in ("car", "pole")
    ]


@pytest.mark.parametrize(
    "kdfparams",
    [
        {"n": 2**30},
        {"n": 2**19},
        {"r": 2**20},
        {"p": 2**30},
        {"n": 2**18, "p": 3},
        {"n": 3},
        {"n": 0},
        {"n": -4},
        {"r": 0},
        {"n": 2**4000},
        {"dklen": 2**31},
        {"salt": "zz"},
        {"n": "4096"},
        {"n": 4096.5},
    ],
)
def test_a_file_cannot_ask_for_absurd_work(keys: Path, kdfparams: dict[str, Any]) -> None:
    put(keys, "pole", written(keys, **kdfparams))
    began = time.monotonic()
    assert "no key file" in refusal(keys)
    assert time.monotonic() - began < 1


def test_absurd_rounds_are_refused(keys: Path) -> None:
    document = written(keys)
    document["crypto"]["kdf"] = "pbkdf2"
    document["crypto"]["kdfparams"] = {"c": 10**12, "prf": "hmac-sha256", "salt": "00", "dklen": 32}
    put(keys, "pole", document)
    assert "outside 1.." in refusal(keys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 3}',
        '{"version": 3, "crypto": {}}',
        "\x00\xff" * 40,
        "[" * 9000,
    ],
)
def test_malformed_files_are_refused(keys: Path, text: str) -> None:
    put(keys, "pole", text)
    assert "no key file" in refusal(keys)
    with pytest.raises(UsageError, match="no key file"):
        keystore.listing(keys)


@pytest.mark.parametrize(
    ("field", "value"), [("mac", "00"), ("ciphertext", "00" * 31), ("mac", "x"), ("cipher", "rot13")]
)
def test_damaged_fields_are_refused(keys: Path, field: str, value: str) -> None:
    document = written(keys)
    document["crypto"][field] = value
    put(keys, "pole", document)
    assert "no key file" in refusal(keys)


def test_a_file_cannot_show_another_address(keys: Path) -> None:
    put(keys, "pole", {**written(keys), "address": "11" * 20})
    assert "address is not that of the key" in refusal(keys)


def test_a_huge_file_is_not_read(keys: Path) -> None:
    put(keys, "pole", " " * (keystore.MAX_FILE + 1))
    assert "more than" in refusal(keys)


def test_a_symbolic_link_is_refused(keys: Path) -> None:
    path = keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    elsewhere = keys.parent / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert "symbolic link" in refusal(keys)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    assert not (keys / "nowhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_reach_is_refused(keys: Path, mode: int) -> None:
    keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT).chmod(mode)
    assert "chmod 600" in refusal(keys)


def test_a_directory_that_others_enter_is_refused(keys: Path) -> None:
    keystore.create(keys, "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    keys.chmod(0o755)
    assert "chmod 700" in refusal(keys)
    with pytest.raises(UsageError, match="others can enter"):
        keystore.create(keys, "car", PASSPHRASE, SECRET, cost=keystore.LIGHT)
    assert [path.name for path in keys.iterdir()] == ["pole.json"]


def test_a_fifo_or_directory_in_place_of_a_key_is_refused(keys: Path) -> None:
    keys.mkdir(mode=0o700, parents=True)
    os.mkfifo(keys / "pole.json", 0o600)
    (keys / "car.json").mkdir()
    assert "not a file" in refusal(keys, "pole")
    refusal(keys, "car")


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        keystore.create(tmp_path / "file" / "keys", "pole", PASSPHRASE, SECRET, cost=keystore.LIGHT)
