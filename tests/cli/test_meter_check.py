"""`penstock meter check`, as its user meets it: real processes and files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.gateways.records import KEBA, KEBA_KEY, der, record


def check(*arguments: str, stdin: str = "", key: str = KEBA_KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "meter", "check", *arguments, "--key", key],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a command that failed."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.splitlines()
    return line


def test_the_genuine_record_is_shown_with_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "keba.ocmf").write_text("\ufeff" + KEBA + "\r\n")
    (tmp_path / "key").write_text(KEBA_KEY + "\n")
    done = check(str(tmp_path / "keba.ocmf"), key=str(tmp_path / "key"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "T32  meter 17619300, register 1-b:1.8.0: verified",
        "    B  259.6 Wh at 2019-08-13T10:03:15Z (clock I)",
        "    E  259.7 Wh at 2019-08-13T10:03:36Z (clock R)",
    ]


def test_a_message_of_ocpp_is_checked_from_stdin_as_json() -> None:
    sampled: dict[str, Any] = {"value": json.dumps({"signedMeterData": KEBA}), "format": "SignedData"}
    message = [2, "1", "MeterValues", {"meterValue": [{"sampledValue": [sampled]}]}]
    done = check("-", "--json", stdin=json.dumps(message))
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["key"] == "ocmf:" + KEBA_KEY.lower()
    assert said["curve"] == "secp256r1"
    (found,) = said["records"]
    assert (found["page"], found["gateway"], found["register"]) == ("T32", "17619300", "1-b:1.8.0")
    assert found["readings"][1] == {"wh": "259.7", "total": 259, "at": 1_565_690_616_000, "clock": "R", "reason": "E"}


SESSION = [record("T1", 1, 0, "B"), record("T2", "1.5", 60, "C"), record("T3", 2, 120, "E")]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([*SESSION, SESSION[1]], "line 4: the reading is replayed or reordered"),
        ([SESSION[0], "", SESSION[1].replace("1.5", "1.6")], "line 3: the reading is forged"),
    ],
)
def test_the_first_that_is_bad_ends_it_with_the_reason(lines: list[str], why: str) -> None:
    key, said = der().hex(), "\n".join(lines)
    done = check("-", stdin=said, key=key)
    assert why in failed(done, 1)
    good = int(why.split()[1].rstrip(":")) - 1 - lines.count("")
    assert sum("verified" in line for line in done.stdout.splitlines()) == good
    as_json = check("-", "--json", stdin=said, key=key)
    failed(as_json, 1)
    error = json.loads(as_json.stdout)["error"]
    assert error["kind"] == "BadReading"
    assert why in error["message"]


@pytest.mark.parametrize(
    ("stdin", "key", "why"),
    [(KEBA, "nonsense", "no public key"), ("\n\n", KEBA_KEY, "no reading")],
)
def test_what_cannot_be_checked_is_a_wrong_use(stdin: str, key: str, why: str) -> None:
    assert why in failed(check("-", stdin=stdin, key=key), 2)


def test_files_that_cannot_be_read_are_a_wrong_use(tmp_path: Path) -> None:
    assert "cannot read" in failed(check(str(tmp_path / "none")), 2)
    (tmp_path / "bytes").write_bytes(b"OCMF|\xff|")
    assert "no UTF-8" in failed(check(str(tmp_path / "bytes")), 2)
    (tmp_path / "bytes").write_bytes(b"x" * (16 * 2**20 + 1))
    assert "split it" in failed(check(str(tmp_path / "bytes")), 2)


def test_without_the_extra_it_is_said_what_to_install() -> None:
    program = "import sys; sys.modules['pyocmf'] = None; from penstock.cli.main import run; run()"
    arguments = [sys.executable, "-c", program, "meter", "check", "-", "--key", KEBA_KEY]
    done = subprocess.run(arguments, input=KEBA, capture_output=True, text=True, timeout=60)
    assert "pip install 'penstock[ocmf]'" in failed(done, 2)
