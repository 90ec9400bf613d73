"""The ledgers of channels and of escrows, connected to when they are first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli import node
from penstock.cli.config import LedgerSection
from penstock.core.channel import Domain
from penstock.core.errors import UsageError, WrongLedger
from penstock.core.escrow import EscrowDomain
from penstock.core.identity import parse_address
from penstock.core.ports import TokenFacts
from penstock.ledgers.devnet.manifest import Manifest
from penstock.storage.sqlite import SqliteJournal

from ..ledgers.conftest import devnet  # noqa: F401 - a fixture

KINDS = [(node.LateLedger, "contract", "Channel", Domain), (node.LateEscrows, "escrow", "Escrow", EscrowDomain)]


@pytest.mark.asyncio
@pytest.mark.parametrize(("late_kind", "key", "kind", "domain"), KINDS)
async def test_a_late_ledger_is_the_one_configured_and_the_journal_remembers_how_its_sums_are_written(
    devnet: Manifest,  # noqa: F811
    tmp_path: Path,
    late_kind: type[node.LateLedger | node.LateEscrows],
    key: str,
    kind: str,
    domain: type[Domain],
) -> None:
    address = devnet.contracts[f"CryptoEuro{kind}"]
    ours = domain(devnet.chain_id, parse_address(address), parse_address(devnet.contracts["CryptoEuro"]))
    journal = SqliteJournal(tmp_path / "journal.db")
    late = late_kind(LedgerSection(url=devnet.url, **{key: address}))
    away = late_kind(LedgerSection(url="http://127.0.0.1:1", **{key: address}))
    try:
        ledger = await late()
        assert ledger.domain == ours
        assert await late() is ledger
        for known in (await late.token(journal), await away.token(journal)):  # the second asks nobody
            assert (known.domain, known.facts) == (ours, TokenFacts("cEUR", 6))
    finally:
        await late.disconnect()
        await away.disconnect()
        await journal.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(("late_kind", "key", "kind", "domain"), KINDS)
async def test_a_contract_that_is_not_named_or_of_the_other_kind_is_no_ledger(
    devnet: Manifest,  # noqa: F811
    late_kind: type[node.LateLedger | node.LateEscrows],
    key: str,
    kind: str,
    domain: type[Domain],
) -> None:
    with pytest.raises(UsageError, match=f"ledger.{key} is not set") as missing:
        late_kind(LedgerSection(url=devnet.url))
    assert f"--{key}" in missing.value.advice
    other = devnet.contracts["CryptoEuroEscrow" if kind == "Channel" else "CryptoEuroChannel"]
    with pytest.raises(WrongLedger):
        await late_kind(LedgerSection(url=devnet.url, **{key: other}))()


def test_naming_ledgers_imports_none_of_what_they_need() -> None:
    code = """
import sys
from penstock.cli.config import LedgerSection
from penstock.cli.node import LateEscrows, LateLedger
section = LedgerSection(url="http://127.0.0.1:1", contract="0x" + "11" * 20, escrow="0x" + "22" * 20)
LateLedger(section), LateEscrows(section)
print([name for name in ("web3", "eth_account", "aiohttp", "penstock.ledgers.contract") if name in sys.modules])
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert made.stdout == "[]\n"
