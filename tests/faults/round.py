"""One round: a car that never was here before buys from the pole while processes are killed.

At each strike all nodes are frozen (SIGSTOP) while the victims die, and the pole's disk is compared with what the car
had been told by then, as its tape has it (`tape.py`). Whoever was killed is started again by its own command line over
its own home, until both have signed the receipt, and the channel is settled on the chain or closing there.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from penstock.core.identity import parse_address
from penstock.core.session import Role
from penstock.ledgers.evm import EvmLedger
from penstock.node import book
from penstock.rails.stream import decode_terms
from penstock.storage.sqlite import SqliteJournal

from .plan import Plan, Strike
from .scene import TICK, Scene, Side, balances, held, journal_of
from .tape import Told

ROUND = 120.0  # seconds that a round may take
TRIES = 20  # starts of the car in one round
AWAY = 0.25  # seconds that the ledger is away at least


class Lost(AssertionError):
    """A round that does not come to its end."""


class Tally:
    """The figures of a run."""

    def __init__(self) -> None:
        self.rounds = 0
        self.kills: Counter[str] = Counter()
        self.by_phase: Counter[str] = Counter()
        self.while_ending = 0
        self.looks = 0
        self.resumed = 0
        self.receipts = 0
        self.alone = 0
        self.without_ledger = 0
        self.transactions = 0
        self.ticks_acknowledged = 0
        self.ticks_lost = 0
        self.units_of_difference = 0
        self.worst_loss_supplier = 0
        self.worst_loss_consumer = 0
        self.credit_limit = 0
        self.problems: list[str] = []
        self.began = time.monotonic()

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self.problems.append(text)
        print(text, file=sys.stderr, flush=True)

    def document(self) -> dict[str, Any]:
        """The figures as they are printed. Losses, differences and limit in token units."""
        return {
            "rounds": self.rounds,
            "kills": dict(sorted(self.kills.items())),
            "kills_by_phase": dict(sorted(self.by_phase.items())),
            "kills_while_ending_in_order": self.while_ending,
            "looks_at_frozen_disks": self.looks,
            "resumed": self.resumed,
            "receipts": self.receipts,
            "closed_by_one_side": self.alone,
            "transactions_found_again": self.transactions,
            "wh_streamed_without_ledger": self.without_ledger,
            "ticks_acknowledged": self.ticks_acknowledged,
            "ticks_lost": self.ticks_lost,
            "units_of_difference": self.units_of_difference,
            "worst_loss_supplier": self.worst_loss_supplier,
            "worst_loss_consumer": self.worst_loss_consumer,
            "credit_limit": self.credit_limit,
            "problems": self.problems,
            "seconds": round(time.monotonic() - self.began),
        }


class Round:
    """A car of its own, and the strikes of its plan."""

    def __init__(self, scene: Scene, tally: Tally, plan: Plan, side: Side) -> None:
        self.scene, self.tally, self.plan, self.side = scene, tally, plan, side
        self.before = scene.register()
        self.end = time.monotonic() + ROUND
        self.car = scene.start_car(side, plan.quantity)
        self.cars = [self.car]

    def run(self) -> None:
        """Strike, mend, and see it through.

        Raises:
            Lost: it does not come to its end.
        """
        for strike in self.plan.strikes:
            self._await(strike.phase)
            time.sleep(strike.delay)
            if strike.victims == ("devnet",):
                self._hit_devnet(strike)
            else:
                self._hit(strike)
        self._buy()
        self._settle()
        self._check()

    # ---- killing

    def _await(self, phase: str) -> None:
        """Wait until the phase begins, or can no longer. An opening or a restart has begun already."""
        scene, pole = self.scene, self.scene.pole
        reached = self.before + self.plan.quantity - 60
        begun: dict[str, Callable[[], bool]] = {
            "stream": lambda: scene.register() > self.before,
            "end": lambda: scene.register() >= reached,
            "settlement": lambda: any(facts["complete"] for facts in self._said("ended")),
            "resume": lambda: bool(pole.said("resumed")) or bool(self.car.said("resumed")),
        }
        what, end = begun.get(phase), time.monotonic() + 10
        while what is not None and not what() and self.car.alive and pole.alive and time.monotonic() < end:
            time.sleep(0.003)

    def _said(self, event: str) -> list[dict[str, Any]]:
        """What the pole has said since the round began."""
        since = self.cars[0].started
        return [facts for at, facts in self.scene.pole.events if facts["event"] == event and at > since]

    def _hit(self, strike: Strike) -> None:
        """Freeze the nodes, kill the victims, look at the disks, let the others go on, and start the victims again."""
        scene, named = self.scene, {"supplier": self.scene.pole, "consumer": self.car}
        if strike.asked is not None:
            for name in strike.victims:
                named[name].send(signal.SIGTERM)
            time.sleep(strike.asked)
        for name in sorted(named, reverse=int(strike.delay * 1e6) % 2 == 0):  # who is frozen first
            named[name].send(signal.SIGSTOP)
        time.sleep(0.001)  # a signal takes effect on the way out of a system call
        for name in strike.victims:
            if named[name].alive:
                self._count(name, strike)
                self.tally.while_ending += strike.asked is not None
                named[name].kill()
        try:
            self._look()
        finally:
            for child in named.values():
                child.send(signal.SIGCONT)
        if "supplier" in strike.victims:
            scene.start_pole(self.plan.mode, wait=False)
        if "consumer" in strike.victims and not self._bought():
            self._start_again()

    def _hit_devnet(self, strike: Strike) -> None:
        """Kill the ledger, let the stream go on without it, and see it come back with every block that it told of."""
        scene = self.scene
        head = scene.rpc("eth_getBlockByNumber", "latest", False)
        scene.devnet.kill()
        self._count("devnet", strike)
        first = scene.register()
        time.sleep(AWAY)
        self.tally.without_ledger += scene.register() - first
        scene.start_devnet()
        again = scene.rpc("eth_getBlockByNumber", head["number"], False)
        if again is None or again["hash"] != head["hash"]:
            self._problem(f"the devnet told of block {head['number']}, and has lost it")

    def _count(self, victim: str, strike: Strike) -> None:
        self.tally.kills[victim] += 1
        self.tally.by_phase[strike.phase] += 1

    def _start_again(self) -> None:
        """The car's own command again: it takes up what it was killed in."""
        if len(self.cars) > TRIES or time.monotonic() > self.end:
            raise Lost(f"the car does not get through: {self.car.errors[-3:]} {self.car.events[-3:]}")
        self.car = self.scene.start_car(self.side, self.plan.quantity)
        self.cars.append(self.car)

    # ---- to the end

    def _buy(self) -> None:
        """Start whoever has ended, until the car holds a receipt that both signed."""
        while True:
            self._mend_pole()
            if self.car.alive:
                self.car.until(lambda: not self.car.alive or not self.scene.pole.alive, 1.0)
            elif self._bought():
                break
            else:
                self._start_again()
            if time.monotonic() > self.end:
                raise Lost(f"the session does not end: {self.car.events[-3:]}, {self.scene.pole.events[-3:]}")
        self.tally.resumed += sum(1 for car in self.cars if car.said("resumed"))

    def _bought(self) -> bool:
        """Whether the car has its receipt: the same command would begin another session."""
        with journal_of(self.side) as journal:
            return journal is not None and any(row.supplier_signature for row in book.sessions(journal))

    def _mend_pole(self) -> None:
        """A pole that ended for want of a ledger, or waits before it tries again, is started anew."""
        scene, pole = self.scene, self.scene.pole
        settling = [facts["event"] for _, facts in pole.events if facts["event"] in ("not settled", "settled")]
        if pole.alive and settling[-1:] == ["not settled"]:
            scene.end_pole()
        if not pole.alive:
            scene.start_pole(self.plan.mode)

    def _settle(self) -> None:
        """See the car's channels settled by the pole; one that was not signed off is closed by the car alone."""
        while True:
            self._mend_pole()
            with journal_of(self.side) as journal:
                assert journal is not None
                rows = book.channels(journal)
            left = [row for row in rows if asyncio.run(status(self.scene, row)) == "open"]
            if not left:
                return
            for row in left:
                if not self._signed_off(row.params.id):
                    self.tally.alone += 1
                    done = self.scene.command(self.side, "channel", "close", book.name_of(row))
                    if done.code:
                        raise Lost(f"`penstock channel close` fails: {done.errors[-1:]}")
            time.sleep(0.02)
            if time.monotonic() > self.end:
                raise Lost(f"the channels are not settled: {self.scene.pole.events[-4:]}")

    def _signed_off(self, channel: bytes) -> bool:
        """Whether the pole holds a close that both signed. It is running: its journal is read beside it."""
        journal = SqliteJournal.open_readonly(self.scene.pole_side.home / "journal.db")
        try:
            row = book.channel_of(journal, channel)
            return row is not None and row.close is not None
        finally:
            journal._reader.close()

    # ---- checking

    def _look(self) -> None:
        """Both nodes are dead or stopped: what does each hold, and what would it lose if the other never came back?"""
        tally = self.tally
        tally.looks += 1
        told = Told(self.side.tape)
        with journal_of(self.scene.pole_side) as journal:
            if journal is None:
                return
            self._compare(told, journal)
            for digest, one in balances(journal, self.scene.register(), self.side.key.address).items():
                if one.over:
                    continue
                unpaid = one.supplied - one.secured
                ahead = told.given.get(digest, 0) - one.supplied
                tally.worst_loss_supplier = max(tally.worst_loss_supplier, unpaid)
                tally.worst_loss_consumer = max(tally.worst_loss_consumer, ahead)
                if max(unpaid, ahead) > one.limit:
                    self._problem(f"{unpaid} unpaid, {ahead} paid ahead, {one.limit} allowed")

    def _compare(self, told: Told, journal: SqliteJournal) -> None:
        """Everything that the car was told must be on the pole's disk."""
        for digest in told.accepted | told.receipted | set(told.secured):
            row = book.session_of(journal, digest)
            if row is None:
                self._problem(f"session {digest.hex()[:8]} was accepted, and is not on disk")
                continue
            complete = bool(row.supplier_signature and row.consumer_signature)
            if digest in told.receipted and not complete:
                self._problem(f"the receipt of {digest.hex()[:8]} was given, and is not on disk")
            stream = decode_terms(row.terms.rail_terms)
            secured = held(journal, stream.params.id) - stream.amount
            heard = told.secured.get(digest, 0)
            if complete and row.receipt is not None:
                heard = min(heard, row.receipt.paid)  # a bill below what was paid ahead, which both signed
            if secured < heard:
                self.tally.ticks_lost += -(-(heard - secured) // TICK)
                self._problem(f"{heard} was acknowledged, {secured} is on disk")
        for channel in told.closing:
            record = book.channel_of(journal, channel)
            if record is None or not (record.close and record.partner_signature):
                self._problem(f"the close of {channel.hex()[:8]} was taken, and is not on disk")

    def _check(self) -> None:
        """After the round: both sides hold the same receipts, and everything that was acknowledged is there."""
        told = Told(self.side.tape)
        self.scene.pole.send(signal.SIGSTOP)
        try:
            with journal_of(self.scene.pole_side) as pole, journal_of(self.side) as car:
                assert pole is not None
                assert car is not None
                self._compare(told, pole)
                bought = {row.terms.digest(): row.receipt for row in book.sessions(car)}
                sold = [row for row in book.sessions(pole) if row.role is Role.SUPPLIER]
        finally:
            self.scene.pole.send(signal.SIGCONT)
        billed = 0
        for row in sold:
            if row.terms.consumer == self.side.key.address and row.receipt and row.supplier_signature:
                self.tally.receipts += 1
                billed += row.receipt.supplier_total
                if bought.get(row.terms.digest()) != row.receipt:
                    self._problem("the receipts of both sides differ")
        self.tally.ticks_acknowledged += sum(told.secured.values()) // TICK
        flowed = self.scene.register() - self.before
        if flowed != billed:
            self._problem(f"{flowed} Wh flowed, both signed for {billed}")
        if flowed != self.plan.quantity and all(strike.asked is None for strike in self.plan.strikes):
            self._problem(f"{flowed} Wh flowed, {self.plan.quantity} were wanted")

    def _problem(self, text: str) -> None:
        self.tally.problem(f"round {self.plan.seed}: {text}")


async def status(scene: Scene, row: book.ChannelRow) -> str:
    """Where the ledger has a channel."""
    ledger = await EvmLedger.connect(scene.manifest["url"], parse_address(scene.contract))
    try:
        return (await ledger.channel(row.params)).status
    finally:
        await ledger.disconnect()
