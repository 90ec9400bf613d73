"""`penstock key`, as its user meets it: real processes, and a terminal for the prompt."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.core.identity import to_hex
from penstock.ledgers.devnet.manifest import dev_key
from penstock.storage import keystore

DEADLINE = 60.0  # seconds for anything at all to be shown


def key(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "key", *arguments],
        env={**os.environ, "PENSTOCK_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture
def words(tmp_path: Path) -> str:
    path = tmp_path / "words"
    path.write_bytes(b"open the gate\r\nsecond line\n")
    return str(path)


def at_terminal(home: Path, name: str, *typed: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """Run `penstock key new` at a terminal of its own; `typed` has what to wait for and what to type then.

    Returns the exit code and what the terminal showed.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.environ["PENSTOCK_HOME"] = str(home)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
        os.execv(sys.executable, [sys.executable, "-m", "penstock", "key", "new", name])  # replaces this
    shown = b""
    waiting = list(typed)
    while True:
        if not select.select([terminal], [], [], DEADLINE)[0]:
            os.kill(process, signal.SIGKILL)
            raise AssertionError(f"it waits, and shows {shown!r}; {len(waiting)} answers are left")
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # Linux says EIO once the last process has left the terminal
            break
        if waiting and shown.endswith(waiting[0][0]):
            os.write(terminal, waiting.pop(0)[1])
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown


def test_a_key_is_made_and_listed(tmp_path: Path, words: str) -> None:
    made = key("new", "pole", "--passphrase-file", words, "--json", home=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    document = json.loads(made.stdout)
    assert document["file"] == str(tmp_path / "keys" / "pole.json")
    assert to_hex(keystore.load(tmp_path / "keys", "pole", "open the gate").address) == document["address"]
    listed = key("list", "--json", home=tmp_path)
    assert json.loads(listed.stdout) == {"keys": [document]}
    assert key("list", home=tmp_path).stdout == f"pole  {document['address']}  {document['file']}\n"


def test_a_home_without_keys_says_how_to_make_one(tmp_path: Path) -> None:
    listed = key("list", home=tmp_path)
    assert listed.returncode == 0
    assert "penstock key new NAME" in listed.stdout
    assert json.loads(key("list", "--json", home=tmp_path).stdout) == {"keys": []}
    assert list(tmp_path.iterdir()) == []


def test_the_passphrase_is_typed_twice_and_not_shown(tmp_path: Path) -> None:
    code, shown = at_terminal(
        tmp_path, "pole", (b"passphrase for key pole: ", b"swordfish\n"), (b"the same again: ", b"swordfish\n")
    )
    assert code == 0
    assert b"swordfish" not in shown
    assert b"key pole has the address 0x" in shown
    keystore.load(tmp_path / "keys", "pole", "swordfish")


@pytest.mark.parametrize(
    ("typed", "what", "code"),
    [
        ([(b"key pole: ", b"one\n"), (b"again: ", b"two\n")], b"the two passphrases differ: start again", 2),
        ([(b"key pole: ", b"\n")], b"the passphrase is empty", 2),
        ([(b"key pole: ", b"\x04")], b"no passphrase was typed", 2),
        ([(b"key pole: ", b"\x03")], b"penstock: interrupted", 130),
    ],
)
def test_what_goes_wrong_at_the_prompt_leaves_nothing(
    tmp_path: Path, typed: list[tuple[bytes, bytes]], what: bytes, code: int
) -> None:
    ended, shown = at_terminal(tmp_path, "pole", *typed)
    assert (ended, what in shown) == (code, True)
    assert b"Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_taken_or_unfit_name_is_told_before_the_prompt(tmp_path: Path) -> None:
    keystore.create(tmp_path / "keys", "pole", "x", bytes(31) + b"\x01", cost=keystore.LIGHT)
    for name, what in (("pole", b"exists already"), ("../pole", b"is no name for a key")):
        code, shown = at_terminal(tmp_path, name)
        assert code == 2
        assert what in shown
        assert b"passphrase for" not in shown


def test_without_a_terminal_a_file_is_asked_for(tmp_path: Path) -> None:
    done = key("new", "pole", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "penstock: no terminal to ask for the passphrase of key 'pole': give --passphrase-file\n"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"x" * 2000])
def test_a_passphrase_file_that_holds_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "words"
    if content is not None:
        path.write_bytes(content)
    done = key("new", "pole", "--passphrase-file", str(path), "--json", home=tmp_path / "home")
    assert done.returncode == 2
    assert str(path) in json.loads(done.stdout)["error"]["message"]
    assert not (tmp_path / "home").exists()


def test_a_malformed_key_file_is_told_by_the_list(tmp_path: Path) -> None:
    keystore.create(tmp_path / "keys", "pole", "x", bytes(31) + b"\x01", cost=keystore.LIGHT).write_text("{}")
    done = key("list", home=tmp_path)
    assert done.returncode == 2
    assert "pole.json is no key file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_devnets_key_is_taken_by_its_number(tmp_path: Path, words: str) -> None:
    done = key("new", "trial", "--devnet", "3", "--passphrase-file", words, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["address"] == to_hex(dev_key(3).address)
