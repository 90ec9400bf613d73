"""The README's commands and programs, run as they stand."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from penstock.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DEADLINE = 120.0  # seconds; some 25 on an idle machine


def block(kind: str, within: str) -> str:
    """The README's block of that kind that contains `within`."""
    (found,) = (text for text in re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) if within in text)
    return str(found)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Ran:
    """What the shell block left: its output and its directory."""

    def __init__(self, out: str, directory: Path) -> None:
        self.out = out
        self.directory = directory


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """The README's shell block, on ports of this test's own, from the checkout as a user would."""
    room = tmp_path_factory.mktemp("readme")
    script = block("sh", "penstock devnet").replace("8545", str(free_port())).replace("7411", str(free_port()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    out, err = tmp_path_factory.mktemp("out") / "out", tmp_path_factory.mktemp("err") / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", script],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(room), "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=stdout,  # files, not pipes: what a failure leaves running would hold a pipe open
            stderr=stderr,
            start_new_session=True,
        )
    try:
        assert shell.wait(DEADLINE) == 0, err.read_text()
        assert "Traceback" not in err.read_text()
        (directory,) = room.iterdir()
        yield Ran(out.read_text(), directory)
    finally:
        with suppress(ProcessLookupError):  # whatever a failure left running is in the block's own session
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def test_the_shell_block_trades_and_settles(ran: Ran) -> None:
    lines = ran.out.splitlines()
    assert "target reached: 5000 Wh by our meter, 5000 Wh by theirs" in lines
    assert "paid 2 cEUR in 2000 ticks; both sides signed the receipt" in lines
    assert "settled: 1; still to be watched: 0" in lines
    shown = json.loads(lines[-1])
    assert shown["ledger"]["status"] == "settled"
    assert shown["worth"] == 2_000_000


def test_the_output_shown_is_the_output_made(ran: Ran) -> None:
    """But for hashes, times, and gas in its last digits (a signature's zero bytes are cheaper)."""

    def form(text: str) -> list[str]:
        plain = re.sub(r"0x\w+(\.\.\.)?|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|(?<=: \d\d),\d{3}(?= gas)", "*", text)
        return plain.splitlines()

    printed = [line for line in ran.out.splitlines() if not line.startswith(("key ", "it is encrypted", "{"))]
    assert form("\n".join(printed)) == form(block("text", "still to be watched"))


def test_the_python_block_verifies_the_voucher(ran: Ran) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python", "voucher.json")],
        cwd=ran.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(" owes 2000000 token units\n")


def test_a_voucher_that_was_touched_is_refused_by_the_example(ran: Ran, tmp_path: Path) -> None:
    voucher = json.loads((ran.directory / "voucher.json").read_text())
    voucher["typed_data"]["message"]["amount"] += 1
    touched = tmp_path / "voucher.json"
    touched.write_text(json.dumps(voucher))
    program = ROOT / "examples" / "verify_voucher.py"
    done = subprocess.run([sys.executable, program, touched], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "signed by" in done.stderr


def test_every_command_and_flag_that_the_documents_name_exists() -> None:
    import typer

    root = typer.main.get_command(app)
    commands = dict(root.commands)  # type: ignore[attr-defined]  # it is a group
    flags = {"--version"}
    for name, command in list(commands.items()):
        for inner, sub in getattr(command, "commands", {}).items():
            commands[f"{name} {inner}"] = sub
    for command in commands.values():
        flags |= {flag for parameter in command.params for flag in parameter.opts}
    flags |= {"--help"}
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        text = document.read_text()
        for words in re.findall(r"(?:`|PENSTOCK_HOME=\w+ |^)penstock ([a-z]+(?: [a-z]+)?)", text, re.MULTILINE):
            assert words in commands or words.split()[0] in commands, f"{document.name}: penstock {words}"
        for line in re.findall(r"^.*penstock .*$|^ +--.*$", text, re.MULTILINE):
            for flag in re.findall(r"(?<=\s)--[a-z-]+", line):
                assert flag in flags, f"{document.name}: {flag}"


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"(?:`|^)make ([a-z]+)", document.read_text(), re.MULTILINE):
            assert target in targets, f"{document.name}: make {target}"
