"""The channel commands over a channel that has paid both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from penstock.cli import handover, journal
from penstock.cli.export import export
from penstock.cli.standing import list_, show
from penstock.core.identity import to_hex
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.node import clock
from penstock.node.channel_till import ChannelTill
from penstock.node.handover import take_over
from penstock.storage import keystore
from penstock.storage.sqlite import SqliteJournal

from ..ledgers.conftest import devnet  # noqa: F401 - a fixture
from ..ledgers.world import ledger_of
from ..node.deal import DEPOSIT, Deal
from ..node.world import Told

CAR, POLE = dev_key(22), dev_key(23)
PAID, BACK = 30_000, 24_000

Ask = Callable[..., Any]


@pytest.fixture
def ask(
    devnet: Manifest,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ask:
    """What a command says in the home of the car or of the pole, after a session of theirs."""
    for name, key in (("car", CAR), ("pole", POLE)):
        keystore.create(tmp_path / name / "keys", name, "test", key.secret, cost=keystore.LIGHT)
    (tmp_path / "passphrase").write_text("test\n")
    asyncio.run(_session(devnet, tmp_path))

    def asked(name: str, command: Callable[..., None], *arguments: Any, **flags: Any) -> Any:
        monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / name))
        capsys.readouterr()
        command(*arguments, as_json=True, **flags)
        return json.loads(capsys.readouterr().out)

    return asked


async def _session(manifest: Manifest, path: Path) -> None:
    journals = [SqliteJournal(path / name / "journal.db") for name in ("car", "pole")]
    try:
        async with ledger_of(manifest) as ledger:
            till = ChannelTill(POLE, journals[1], ledger, clock.now, Told())
            deal = Deal(ledger, clock.now, (CAR, journals[0]), till, Told())
            await deal.begin()
            await deal.pay(PAID)
            await deal.pay(BACK, back=True)
            await deal.finish()
    finally:
        for one in journals:
            await one.close()


def test_both_directions_are_listed_exported_handed_over_and_checked(
    ask: Ask,
    devnet: Manifest,  # noqa: F811
    tmp_path: Path,
) -> None:
    listed = {name: ask(name, list_, url=devnet.url)["channels"][0] for name in ("car", "pole")}
    car, pole = listed["car"], listed["pole"]
    assert (car["worth"], car["paid_back"], car["share"], car["at_risk"]) == (PAID, BACK, DEPOSIT - PAID + BACK, BACK)
    assert (pole["worth"], pole["paid_back"], pole["share"], pole["at_risk"]) == (PAID, BACK, PAID - BACK, PAID)
    assert ask("car", show, car["channel"], url=devnet.url)["two_way"]
    exported = ask("car", export, car["channel"])
    assert exported == ask("pole", export, car["channel"])
    for voucher, key, amount in ((exported, CAR, PAID), (exported["back"], POLE, BACK)):
        assert voucher["typed_data"]["message"]["amount"] == amount
        signable = encode_typed_data(full_message=voucher["typed_data"])
        signer = Account.recover_message(signable, signature=voucher["signature"])
        assert signer == voucher["signer"] == to_hex(key.address)
    file, passphrase = tmp_path / "car.handover", tmp_path / "passphrase"
    shared = {"passphrase_file": passphrase, "shared_passphrase_file": passphrase}
    handed = ask("car", handover.handover, file, key="car", **shared)
    assert (handed["channels"], handed["worth"]) == (1, BACK)
    assert [one.partner for one in take_over(file, "test")] == [False]
    for name in ("car", "pole"):
        assert ask(name, journal.check)["problems"] == []
