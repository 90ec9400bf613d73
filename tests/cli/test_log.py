"""A node's log: each line has its time, level and event, and the session; bytes do not get into it."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli.log import log_to
from penstock.core.errors import UsageError
from penstock.node.tell import LEVELS

SOURCE = Path(__file__).parents[2] / "src" / "penstock"
DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers


def told() -> set[str]:
    """Every event that the source of nodes and commands tells."""
    events = set()
    for file in (*SOURCE.glob("node/*.py"), *SOURCE.glob("cli/*.py")):
        events |= set(re.findall(r"(?:tell|told|complain|refuse)\(\s*\"([^\"]+)\"", file.read_text()))
    return events - {"event"}  # of the docstring that says how to tell one


def test_a_line_of_json_has_time_level_event_and_session_first(capsys: pytest.CaptureFixture[str]) -> None:
    log_to("json")("cut off", error="two\nlines", session="ab12")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    found = json.loads(line)
    assert list(found) == ["time", "level", "event", "session", "error"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])
    assert (found["level"], found["event"], found["error"]) == ("warning", "cut off", "two\nlines")


def test_a_line_of_text_is_one_line_that_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log_to("text")("ended", reason="no\n\x1b[2Jway", fault="", session="ab12")
    line = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info     ended session=ab12 reason=no \\x1b\[2Jway\n", line)


def test_bytes_do_not_get_into_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "text"):
        log_to(form)("accepted", seed=b"\x01secret", rows=[b"secret"], by=memoryview(b"secret"), map={b"secret": 1})
    said = capsys.readouterr().err
    assert "secret" not in said
    assert "<bytes>" in said


def test_facts_within_facts_stay_readable_and_bytes_within_them_secret(capsys: pytest.CaptureFixture[str]) -> None:
    log_to("json")("standing", out=[{"to": "0x12", "locks": 2, "seed": b"secret"}], hub={"up": True})
    found = json.loads(capsys.readouterr().err)
    assert found["out"] == [{"to": "0x12", "locks": 2, "seed": "<bytes>"}]
    assert found["hub"] == {"up": True}


def test_what_a_library_logs_is_an_event_like_others(capsys: pytest.CaptureFixture[str]) -> None:
    log_to("json")
    logging.getLogger("some.library").error("it %s", "broke")
    found = json.loads(capsys.readouterr().err)
    assert (found["level"], found["event"]) == ("error", "log")
    assert (found["logger"], found["message"]) == ("some.library", "it broke")


def test_a_fault_of_ours_is_heard_even_without_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("none", "json"):
        log_to(form).fault(ValueError("odd"), "")
    plain, event = capsys.readouterr().err.splitlines()
    assert plain.startswith("penstock: internal error: ValueError: odd: please report it")
    assert json.loads(event)["level"] == "error"


def test_a_log_of_no_known_form_is_refused() -> None:
    with pytest.raises(UsageError, match="--log 'xml' is not a form of log"):
        log_to("xml")


def test_the_document_says_what_to_do_about_every_warning_and_error() -> None:
    rows = re.findall(r"^\| (`.+?) \| (warning|error) \|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {event: level for events, level in rows for event in re.findall(r"`([^`]+)`", events)}
    assert documented == {event: level for event, level in LEVELS.items() if level in ("warning", "error")}


def test_every_event_has_its_level() -> None:
    assert told() >= {"accepted", "ended", "cut off", "fault", "LOST: no answer came in time"}
    assert not told() - LEVELS.keys()


def test_no_fact_bears_the_name_of_what_a_line_has_already() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                taken = {one.arg for one in node.keywords} & {"event", "level", "time"}
                assert name.lstrip("_") not in ("tell", "told", "complain") or not taken, f"{path}:{node.lineno}"
