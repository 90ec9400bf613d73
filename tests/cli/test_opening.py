"""`channel authorize` and `channel open`: what they refuse, before anything is signed or paid."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.opening import authorize, open_
from penstock.core.channel import APART, ChannelParams, Domain
from penstock.core.codec import encode
from penstock.core.errors import OutOfFunds, UsageError, WrongLedger
from penstock.core.identity import Address, to_hex
from penstock.core.ports import Authorization, SignedOpen
from penstock.core.units import Amount
from penstock.ledgers.artifacts import load, runtime
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.storage import keystore

from ..ledgers.conftest import devnet  # noqa: F401 - a fixture
from ..ledgers.world import deploy_code, ledger_of

CAR, POLE = dev_key(20), dev_key(21)


@pytest.fixture
def mine(devnet: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:  # noqa: F811
    """The flags of somebody with the car's key, in a home of its own."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    keystore.create(tmp_path / "keys", "car", "test", CAR.secret, cost=keystore.LIGHT)
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("test\n")
    return {"url": devnet.url, "key": "car", "passphrase_file": passphrase}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deposit": "-5"}, "--deposit -5 is negative"),
        ({"deposit": "0"}, "--deposit is 0"),
        ({"fee": "-1"}, "--fee -1 is negative"),
        ({"hours": 0.0}, "--hours 0"),
        ({"period": 5}, "--period"),
        ({"supplier": "0x123"}, "is not an address"),
        ({"supplier": "0x" + "00" * 20}, "none of them zero"),
        ({"supplier": to_hex(CAR.address)}, "ourselves"),
        ({"deposit": "900000000"}, "900000000 cEUR are needed"),
    ],
)
def test_what_cannot_be_authorized_is_refused_and_leaves_nothing(
    devnet: Manifest,  # noqa: F811
    mine: dict[str, Any],
    tmp_path: Path,
    changes: dict[str, Any],
    words: str,
) -> None:
    file = tmp_path / "opening.json"
    asked = {"supplier": to_hex(POLE.address), "deposit": "1", "contract": devnet.contracts["CryptoEuroChannel"]}
    with pytest.raises((UsageError, OutOfFunds)) as refused:
        authorize(file=file, **{"fee": None, "period": 3_600, "hours": 1.0, **asked, **mine, **changes})
    assert words in refused.value.line()
    assert not file.exists()


def test_an_opening_in_a_counterfeit_contract_is_not_paid_for(
    devnet: Manifest,  # noqa: F811
    mine: dict[str, Any],
    tmp_path: Path,
) -> None:
    """It answers as ours does, but for one byte."""
    file = tmp_path / "opening.json"

    async def write() -> None:
        async with ledger_of(devnet) as ledger:
            chain_id, token, code = ledger.domain.chain_id, ledger.domain.token, runtime(load("Channel"))

            def counterfeit(address: Address) -> bytes:
                domain = Domain(chain_id, address, token)
                changed = code.replace(b"not a party", b"not a Party", 1)
                return changed + token.rjust(32, b"\0") + domain.separator + domain.seed

            domain = Domain(chain_id, await deploy_code(ledger, POLE, counterfeit), token)
        here, there = CAR.address, POLE.address
        params = ChannelParams(domain, there, here, there, here, 3_600, False, APART)
        file.write_bytes(encode(SignedOpen(params, Authorization(Amount(5), Amount(9), 0, 2**40, bytes(65)))))

    async def ether() -> int:
        async with ledger_of(devnet) as ledger:
            return (await ledger.holdings(CAR.address)).ether

    asyncio.run(write())
    before = asyncio.run(ether())
    with pytest.raises(WrongLedger, match="not this version's"):
        open_(file, **mine)
    with pytest.raises(WrongLedger, match="is configured"):
        open_(file, contract=devnet.contracts["CryptoEuroChannel"], **mine)
    assert asyncio.run(ether()) == before
