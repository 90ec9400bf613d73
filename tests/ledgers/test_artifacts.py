"""The compiled contracts are found, and their absence is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from vyper.compiler import compile_code
from vyper.compiler.settings import OptimizationLevel, Settings

from penstock.core.errors import UsageError
from penstock.ledgers import artifacts

SOURCES = Path(artifacts.__file__).parents[1] / "contracts"
CODE_LIMIT = 24_576  # bytes, EIP-170


@pytest.mark.parametrize("name", ["Channel", "Escrow", "CryptoEuro", "WrappedEther"])
def test_an_artifact_is_what_its_source_compiles_to_and_fits_into_the_limit(name: str) -> None:
    settings = Settings(evm_version="prague", optimize=OptimizationLevel.GAS)
    source = (SOURCES / f"{name}.vy").read_text()
    made = compile_code(source, output_formats=["abi", "bytecode", "bytecode_runtime"], settings=settings)
    found = artifacts.load(name)
    assert (found["abi"], found["bytecode"]) == (made["abi"], made["bytecode"])
    assert len(made["bytecode_runtime"]) // 2 - 1 <= CODE_LIMIT


def test_a_contract_that_was_never_built_is_reported_with_advice() -> None:
    with pytest.raises(UsageError, match="contract Nothing is not built") as caught:
        artifacts.load("Nothing")
    assert "pip install" in caught.value.advice
