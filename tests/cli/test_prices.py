"""`penstock prices` reads a series as a pole does, and signs one that a pole takes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.core import published
from penstock.core.errors import BadRates, UsageError
from penstock.core.identity import Key, to_hex
from penstock.storage import keystore

DAY = str(resources.files("penstock").joinpath("data", "prices-day.json"))
KEY = Key(b"\x21" * 32)


def said(*arguments: str) -> str:
    answered = CliRunner().invoke(app, ["prices", *arguments])
    if answered.exception is not None:
        raise answered.exception
    return answered.stdout


def test_a_series_is_shown() -> None:
    shown = json.loads(said("show", DAY, "--json"))
    assert (shown["slots"], shown["negative"], shown["lowest"], shown["highest"]) == (96, 10, "-0.0893", "0.5923")
    assert "96 prices from 2026-06-13T22:00:00Z" in said("show", DAY)


def test_what_is_signed_here_is_taken_by_the_signers_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    keystore.create(tmp_path / "keys", "publisher", "test", KEY.secret, cost=keystore.LIGHT)
    (tmp_path / "pass").write_text("test\n")
    text = said("sign", DAY, "--key", "publisher", "--passphrase-file", str(tmp_path / "pass"))
    published.parse(text.encode()).check(KEY.address, "supply")
    signed = tmp_path / "signed.json"
    signed.write_text(text)
    assert "96 prices" in said("show", str(signed), "--signer", to_hex(KEY.address))
    with pytest.raises(BadRates, match="'feed' is needed"):
        said("show", str(signed), "--signer", to_hex(KEY.address), "--title", "feed")
    with pytest.raises(UsageError, match="is not an address"):
        said("show", str(signed), "--signer", "0x12")
