"""Which chain the tests of contracts and ledgers stand on."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chain",
        choices=("devnet", "anvil"),
        default="devnet",
        help="the chain under the tests of contracts and ledgers (`make integration` installs anvil)",
    )
