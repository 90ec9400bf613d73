"""A stale close against a pole that sleeps: somebody else's `penstock watch` answers, whatever the chain does to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import TypeVar

import msgspec
import pytest

from penstock.core.channel import ChannelParams
from penstock.core.identity import parse_address, to_hex
from penstock.core.ports import ChannelState
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.node import book
from penstock.storage import keystore
from penstock.storage.sqlite import SqliteJournal

from ..e2e.world import DEADLINE, Process, World
from .anvil import Anvil

OWED = 500 * 400  # token units for 500 Wh
DEPOSIT = 1_000_000
SPIKE = 10**12  # wei a gas: 1,000 gwei

T = TypeVar("T")


class Street(World):
    """A pole that has sold to a car and fallen asleep; its channel is open, and its vouchers are with a watcher."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        super().__init__(directory, msgspec.to_builtins(manifest), 0)
        home = directory / "watcher"
        home.mkdir(mode=0o700)
        self.keys["watcher"] = dev_key(2)
        keystore.create(home / "keys", "watcher", "test", self.keys["watcher"].secret, cost=keystore.LIGHT)
        self.file = directory / "pole.handover"
        self.shared = directory / "shared"
        self.shared.write_text("between us\n")

    def trade(self) -> None:
        """The car buys 500 Wh and keeps its channel; the pole hands over, and sleeps."""
        pole = self.pole(speed=None)
        car = self.car(pole.until("listening")["address"], "--keep", "--deposit", "1", quantity=500)
        car.answer()
        pole.kill()
        done = self.command(
            "pole", "channel", "handover", str(self.file), "--key", "pole", "--passphrase-file", str(self.passphrase),
            "--shared-passphrase-file", str(self.shared), "--json",
        )  # fmt: skip
        assert json.loads(done.stdout) == {"file": str(self.file), "channels": 1, "worth": OWED}, done.stderr

    def watch(self, *flags: str) -> Process:
        return self.start(
            "watcher", "watch", str(self.file), "--url", self.manifest["url"], "--key", "watcher",
            "--passphrase-file", str(self.passphrase), "--shared-passphrase-file", str(self.shared),
            "--every", "0.2", "--once", "--log", "json", "--json", *flags,
        )  # fmt: skip

    @property
    def params(self) -> ChannelParams:
        (row,) = book.channels(SqliteJournal.open_readonly(self.home("pole") / "journal.db"))
        return row.params

    def closes(self) -> None:
        """The car begins to close alone, as if it had never paid. Returns once the transaction was handed in."""
        done = self.command("car", "channel", "close", to_hex(self.params.id), *self.common("car"))
        assert done.returncode == 0, done.stderr

    def state(self) -> ChannelState:
        return asyncio.run(self._ask(lambda ledger: ledger.channel(self.params)))

    def filed(self) -> int:
        return asyncio.run(self._ask(lambda ledger: ledger.filed(self.params, True))).amount

    def balance(self, name: str) -> int:
        return asyncio.run(self._ask(lambda ledger: ledger.holdings(self.keys[name].address))).balance

    async def _ask(self, question):  # type: ignore[no-untyped-def]  # any question to the ledger
        ledger = await EvmLedger.connect(self.manifest["url"], parse_address(self.contract))
        try:
            return await question(ledger)
        finally:
            await ledger.disconnect()


@pytest.fixture
def street(tmp_path: Path, manifest: Manifest) -> Iterator[Street]:
    made = Street(tmp_path, manifest)
    made.trade()
    yield made
    made.end()


def period_over(anvil: Anvil, street: Street) -> None:
    anvil.increase_time(street.params.period + 1)
    anvil.mine()


def test_a_stale_close_is_answered_through_a_restart_a_reorg_and_a_fee_spike(anvil: Anvil, street: Street) -> None:
    watch = street.watch("--max-gwei", "5000", "--raise-after", "1", "--confirmations", "2")
    watch.until("watching", channels=1)

    anvil.stop()
    watch.until("ledger not seen")
    anvil.start()

    height = anvil.height()
    street.closes()
    assert watch.until("channel closing")["at_risk"] == OWED
    watch.until("filed", worth=OWED)
    assert street.filed() == OWED

    watch.signal(SIGSTOP)  # until blocks are made by hand
    anvil.reorg(anvil.height() - height - 1)  # every block from the answer on; the close itself stays
    anvil.set_automine(False)
    assert (street.state().status, street.filed()) == ("closing", 0)
    watch.signal(SIGCONT)
    offered = eventually(lambda: offers(anvil), "it does not answer again")
    anvil.set_base_fee(SPIKE)
    anvil.mine()
    assert street.filed() == 0, "no block takes it at that price"
    eventually(lambda: max(offers(anvil).values(), default=0) > SPIKE, "it does not offer more")
    assert max(offered.values()) < SPIKE
    eventually(lambda: anvil.mine() or street.filed() == OWED, "it is never mined")
    anvil.set_automine(True)

    watch.kill()  # and the watcher itself is restarted
    watch = street.watch("--max-gwei", "5000", "--confirmations", "2")
    watch.until("channel closing")
    period_over(anvil, street)
    watch.until("paid out")
    anvil.mine(3)
    watch.until("settled for good")
    assert watch.answer() == {"settled": 1, "left": 0, "lost": 0}
    assert watch.code == 0
    assert street.balance("pole") == OWED
    assert street.balance("car") == DEPOSIT - OWED


def test_a_watcher_without_ether_says_so_and_answers_when_it_has_some(anvil: Anvil, street: Street) -> None:
    watcher = street.keys["watcher"].address
    anvil.set_balance(watcher, 1_000)
    watch = street.watch()
    assert watch.until("WALLET CANNOT PAY for answers")["ether"] == "0.000000000000001"
    street.closes()
    watch.until("not answered")
    anvil.set_balance(watcher, 10**18)
    watch.until("filed", worth=OWED)
    assert street.filed() == OWED


def test_the_pole_itself_is_paid_at_once_when_it_watches(anvil: Anvil, street: Street) -> None:
    street.closes()
    watch = street.start(
        "pole", "watch", "--url", street.manifest["url"], "--key", "pole", "--passphrase-file",
        str(street.passphrase), "--every", "0.2", "--once", "--log", "json", "--json",
    )  # fmt: skip
    watch.until("filed", worth=OWED)
    watch.until("settled for good")
    assert watch.answer() == {"settled": 1, "left": 0, "lost": 0}
    assert street.balance("pole") == OWED


def test_what_nobody_answered_is_called_lost(anvil: Anvil, street: Street) -> None:
    street.closes()
    period_over(anvil, street)
    watch = street.watch()
    watch.until("channel closing")
    settled = street.command("car", "channel", "settle", to_hex(street.params.id), *street.common("car"))
    assert settled.returncode == 0, settled.stderr
    assert watch.until("LOST: no answer came in time")["lost"] == OWED
    assert watch.answer() == {"settled": 1, "left": 0, "lost": OWED}
    assert watch.code == 1


def offers(anvil: Anvil) -> dict[int, int]:
    """What the transactions in the pool offer for a unit of gas (wei), by nonce."""
    pool = anvil.ask("txpool_content")
    waiting = [found for kind in pool.values() for owned in kind.values() for found in owned.values()]
    return {int(found["nonce"], 16): int(found["maxFeePerGas"], 16) for found in waiting}


def eventually(met: Callable[[], T], what: str) -> T:
    """What `met` returns, once it is something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := met():
            return found
        time.sleep(0.05)
    raise AssertionError(what)
