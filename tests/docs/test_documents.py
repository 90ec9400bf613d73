"""What the documents name is there: files, functions, words, states, pictures."""

from __future__ import annotations

import json
import re
import runpy
from importlib.resources import files
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from penstock.core.messages import Reason
from penstock.core.ports import ChannelState
from penstock.core.session import State

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "penstock"
DOCUMENTS = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))

WORDS = (
    "supplier, consumer", "medium", "package", "tick", "meter", "valve", "control unit", "exposure", "tariff", "rail",
    "ledger", "channel", "voucher", "stream lock", "fold", "release", "hub", "gateway", "watcher", "directory",
)  # fmt: skip


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document: Path) -> None:
    for named in re.findall(r"`([\w./-]+\.(?:py|vy|md|txt|svg|json|csv))`", document.read_text()):
        if named in ("channel/", "voucher.json", "config.toml"):
            continue
        places = (ROOT / named, SOURCE / named, *SOURCE.glob(f"**/{named}"))
        assert any(place.exists() for place in places), named


def test_functions_that_are_named_exist() -> None:
    source = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for document in DOCUMENTS:
        for owner, member in re.findall(r"`([A-Z]\w+)\.(?!vy)(_?[a-z]\w*)`", document.read_text()):
            body = re.search(rf"^class {owner}\b.*?(?=^class |\Z)", source, re.MULTILINE | re.DOTALL)
            assert body, f"{document.name}: {owner}"
            assert re.search(rf"\bdef {member}\b", body[0]), f"{document.name}: {owner}.{member}"


def test_the_glossary_has_every_word() -> None:
    entries = re.findall(r"^\| ([^|]+?) \|", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)
    statuses = get_args(get_type_hints(ChannelState)["status"])
    for word in (*WORDS, *State, *Reason, *statuses):
        assert str(word) in entries, word


def test_the_contract_document_names_every_function() -> None:
    text = (ROOT / "docs" / "contract.md").read_text()
    artifact = json.loads((files("penstock") / "contracts" / "artifacts" / "Channel.json").read_text())
    for entry in artifact["abi"]:
        if entry["type"] == "function":
            assert re.search(rf"`{entry['name']}[(`]", text), entry["name"]


def test_decisions_are_numbered_without_a_gap_and_say_why() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text()
        assert all(part in text for part in ("Context", "Decision", "Consequences")), path.name


def test_pictures_are_those_of_their_texts() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "diagrams" / "make.py"))["svg"]
    sources = list((ROOT / "docs" / "diagrams").glob("*.txt"))
    assert sources
    for source in sources:
        assert source.with_suffix(".svg").read_text() == draw(source.read_text()), f"{source.name}: make diagrams"
