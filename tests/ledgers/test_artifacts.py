"""The compiled contracts are found, and their absence is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from vyper.compiler import compile_code
from vyper.compiler.settings import OptimizationLevel, Settings

from penstock.core.errors import UsageError
from penstock.ledgers import artifacts

SOURCES = Path(artifacts.__file__).parents[1] / "contracts"


@pytest.mark.parametrize("name", ["Channel", "CryptoEuro", "WrappedEther"])
def test_an_artifact_is_what_its_source_compiles_to(name: str) -> None:
    settings = Settings(evm_version="prague", optimize=OptimizationLevel.GAS)
    made = compile_code((SOURCES / f"{name}.vy").read_text(), output_formats=["abi", "bytecode"], settings=settings)
    found = artifacts.load(name)
    assert (found["abi"], found["bytecode"]) == (made["abi"], made["bytecode"])


def test_the_channel_contract_fits_into_the_limit_of_code_size() -> None:
    settings = Settings(evm_version="prague", optimize=OptimizationLevel.GAS)
    made = compile_code((SOURCES / "Channel.vy").read_text(), output_formats=["bytecode_runtime"], settings=settings)
    assert len(made["bytecode_runtime"]) // 2 <= 24_576  # EIP-170


def test_a_contract_that_was_never_built_is_reported_with_advice() -> None:
    with pytest.raises(UsageError, match="contract Nothing is not built") as caught:
        artifacts.load("Nothing")
    assert "pip install" in caught.value.advice
