"""A sealed file opens with its passphrase and for its purpose only, and is replaced whole or not at all."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from penstock.core.errors import UsageError
from penstock.storage.keystore import LIGHT
from penstock.storage.sealed import seal, unseal

CONTENT = b'[{"worth": 1}]'


def sealed(path: Path, content: bytes = CONTENT) -> Path:
    seal(path, "penstock hand-over", "between us", content, cost=LIGHT)
    return path


def test_what_was_sealed_is_read_again_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = sealed(tmp_path / "file")
    assert unseal(path, "penstock hand-over", "between us") == CONTENT
    assert CONTENT not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="passphrase does not open"):
        unseal(path, "penstock hand-over", "Between us")
    with pytest.raises(UsageError, match="no penstock backup file"):
        unseal(path, "penstock backup", "between us")


def test_a_newer_file_replaces_the_older_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = sealed(sealed(tmp_path / "file"), b"newer")
    assert unseal(path, "penstock hand-over", "between us") == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = sealed(tmp_path / "file")
    document = json.loads(path.read_text())
    flipped = "B" if document["ciphertext"][0] == "A" else "A"
    for change in (
        {"ciphertext": flipped + document["ciphertext"][1:]},
        {"header": {**document["header"], "salt": "00" * 32}},
        {"header": {**document["header"], "nonce": "00" * 12}},
        {"header": {**document["header"], "version": 2}},
        {"header": {**document["header"], "n": 2**30}},
        {"header": {**document["header"], "penstock": "penstock backup"}},
        {"more": 1},
    ):
        path.write_text(json.dumps({**document, **change}))
        with pytest.raises(UsageError):
            unseal(path, "penstock hand-over", "between us")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 50, b'{"header": 1}', b"[" * 5_000])
def test_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        unseal(path, "penstock hand-over", "between us")


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        unseal(tmp_path / "none", "penstock hand-over", "x")
    with pytest.raises(UsageError, match="cannot write"):
        sealed(tmp_path / "no" / "file")
