"""The frame of the command: exit codes, one line for every error, one JSON object, and a quick start."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

EXTRA = """
import sys
from penstock.cli import main
from penstock.cli.output import AsJson
from penstock.core.errors import PeerRefused, UsageError
@main.app.command()
def go(as_json: AsJson = False) -> None:
    {body}
main.run()
"""


def penstock_(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        env={**os.environ, "PENSTOCK_HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def command(body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`penstock go` with one more command in the frame, whose body this is."""
    return subprocess.run(
        [sys.executable, "-c", EXTRA.format(body=body), "go", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_version_is_told(tmp_path: Path) -> None:
    done = penstock_("--version", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"penstock {penstock.__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["key", "--help"], ["key", "new", "-h"]])
def test_help_teaches_on_stdout(tmp_path: Path, arguments: list[str]) -> None:
    done = penstock_(*arguments, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: penstock")
    assert arguments == ["key", "--help"] or "Example:" in done.stdout
    assert "\x1b" not in done.stdout


def test_help_costs_little(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(3):
        assert penstock_("--help", home=tmp_path).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 3
    assert cpu < 0.5, "0.2 s on a quiet machine; the limit is 0.3"


LOADED = """
import sys
from penstock.cli import main
sys.argv[1:] = ["--help"]
try:
    main.run()
finally:
    print(*{name.split(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def test_help_loads_nothing_that_only_a_command_needs() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    heavy = {
        "web3", "eth_account", "eth_abi", "eth", "vyper", "rich", "uvloop", "aiohttp", "cryptography", "structlog",
        "prometheus_client", "sqlite3",
    }  # fmt: skip
    assert done.stdout.startswith("Usage: penstock")
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--foo"], "no such option: --foo: see penstock --help"),
        (["steal"], "no such command 'steal': see penstock --help"),
        (["key"], "missing command: see penstock key --help"),
        (["key", "new"], "missing argument 'name': see penstock key new --help"),
        (["key", "list", "x"], "see penstock key list --help"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(tmp_path: Path, arguments: list[str], what: str) -> None:
    done = penstock_(*arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("penstock: ")
    assert done.stderr.endswith(f"{what}\n")
    assert done.stderr.count("\n") == 1


def test_a_usage_error_has_code_2_and_others_code_1() -> None:
    for kind, code in (("UsageError", 2), ("PeerRefused", 1)):
        done = command(f"raise {kind}('the gate is shut', 'open it')")
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "penstock: the gate is shut: open it\n")


def test_with_json_stdout_carries_the_error_alone() -> None:
    done = command("raise PeerRefused('the gate is shut', 'open it')", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "error": {"kind": "PeerRefused", "message": "the gate is shut", "advice": "open it"}
    }
    assert done.stderr == "penstock: the gate is shut: open it\n"
    wrong = command("pass", "--json", "--foo")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["error"]["kind"] == "UsageError"


def test_a_peers_words_cannot_steer_the_terminal() -> None:
    done = command(r"raise PeerRefused('no\n\x1b[2J\u202eway')")
    assert done.stderr == "penstock: no \\x1b[2J\\u202eway\n"


def test_an_unexpected_error_is_one_line_and_the_traceback_is_for_who_asks() -> None:
    done = command("raise ValueError('odd')", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("penstock: internal error: ValueError: odd: please report it")
    assert done.stderr.count("\n") == 1
    assert json.loads(done.stdout)["error"]["kind"] == "InternalError"
    traced = command("raise ValueError('odd')", PENSTOCK_TRACE="1")
    assert "Traceback" in traced.stderr
    assert "PENSTOCK_TRACE" in traced.stderr


def test_an_interrupted_command_has_code_130() -> None:
    done = command("raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "penstock: interrupted\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    body = "[print('row') for _ in range(100000)]"
    with subprocess.Popen(
        [sys.executable, "-c", EXTRA.format(body=body), "go"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"row\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_logs_go_to_stderr() -> None:
    done = command("import logging; logging.getLogger('penstock.node').warning('slow'); print(dict())", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "penstock: WARNING: slow\n")
