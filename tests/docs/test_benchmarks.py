"""The page on benchmarks says what was measured, and how each figure is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
RESULTS: dict[str, Any] = json.loads((ROOT / "bench" / "results.json").read_text())
ABOUT = {"machine", "steal", "steal_by_module", "doubts"}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_figures", ROOT / "bench" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _returned(figures: ModuleType, module: str) -> dict[str, Any]:
    """What a module returns, every figure 1."""
    return {key: dict.fromkeys(within, 1.0) or 1.0 for key, within in figures.KEYS[module].items()}


def test_the_page_says_what_the_results_say(figures: ModuleType) -> None:
    _, _, rest = PAGE.partition("<!-- results: begin -->\n")
    shown, end, _ = rest.partition("<!-- results: end -->")
    assert end
    assert shown == f"\n{figures.table(RESULTS)}\n", "run `python -m bench --table`"


def test_the_page_explains_every_module_and_figure(figures: ModuleType) -> None:
    prose = PAGE.partition("## Results")[0]
    for module, keys in figures.KEYS.items():
        for name in (module, *keys):
            assert f"`{name}`" in prose


def test_results_are_those_of_modules_and_of_the_machine(figures: ModuleType) -> None:
    known = {key for keys in figures.KEYS.values() for key in keys}
    assert set(RESULTS) <= known | ABOUT
    for module, keys in figures.KEYS.items():
        measured = {key: RESULTS[key] for key in keys if key in RESULTS}
        assert not measured or figures.wrong_shape(module, measured) == ""


def test_what_a_module_returns_is_held_against_its_keys(figures: ModuleType) -> None:
    whole = _returned(figures, "streams")
    assert figures.wrong_shape("streams", whole | {"beyond": 1.0}) == ""
    assert "no sha256_per_s" in figures.wrong_shape("streams", {k: v for k, v in whole.items() if k != "sha256_per_s"})
    assert "w256" in figures.wrong_shape("streams", whole | {"durable_ticks_per_s": {"w1": 1.0, "w16": 1.0}})
    assert "sha256_per_s" in figures.wrong_shape("streams", whole | {"sha256_per_s": {"w1": 1.0}})


def test_a_target_is_met_or_missed_as_the_figure_says(figures: ModuleType) -> None:
    results = {"vouchers_per_s": 7, "secp256k1_verify_per_s": 10, "x402_voucher_verify_per_s": 2}
    said = "\n".join(figures.lines(results | {"doubts": {"vouchers": "steal 7%"}}))
    assert "ok     vouchers vs bare secp256k1 verification" in said
    assert "0.70 (>= 0.70)  doubtful: steal 7%" in said
    assert "MISSED vouchers vs x402 with coincurve" in said
    assert "3.50 (>= 6.00)" in said
    assert "not measured (< 3.00)" in said


def test_the_command_teaches_and_refuses_what_it_does_not_know(figures: ModuleType) -> None:
    command = [sys.executable, "-m", "bench"]
    taught = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(module in taught for module in figures.KEYS)
    refused = subprocess.run([*command, "speed"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "no such module: speed" in refused.stderr
