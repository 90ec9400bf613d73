"""kill -9 at random instants, round after round: `python -m tests.faults.rounds --rounds 200 --seed 1`.

In each round a car that never was here before buys from the pole while processes are killed: one to three strikes, each
at a random instant of a phase of the session (its opening, its stream, its end, the settlement, a restart, a
resumption). Whoever was killed is started again by its own command line over its own home, until both have signed the
receipt and the channel is settled on the chain, or waits for its challenge period to pass, which it does for all such
channels at once after the last round.

At each strike all nodes are frozen (SIGSTOP) while the victims die, and their disks are compared with what the car had
been told by then, as its tape has it (`tape.py`). At the end the chain must have paid, to the token unit, what both
signed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.identity import parse_address
from penstock.core.session import Role
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, ending
from penstock.storage.sqlite import SqliteJournal

from .nursery import Child
from .scene import TICK, Scene, Side, balances, held, journal_of
from .tape import Told

PHASES = {"opening": 25, "stream": 40, "end": 15, "settlement": 20}  # weights; in the order in which they come
SPANS = {
    "opening": 0.5,
    "stream": 0.9,
    "end": 0.06,
    "settlement": 0.15,
    "restart": 0.3,
    "resume": 0.05,
}  # s; early more often than late
VICTIMS = {"supplier": 32, "consumer": 32, "both": 22, "devnet": 14}
BLOCK = 20  # rounds that one way of paying lasts
ROUND = 90.0  # seconds that a round may take
TRIES = 12  # starts of the car in one round


class Strike(NamedTuple):
    """Whom to kill, in which phase, and how long after the phase begins (s)."""

    phase: str
    victims: tuple[str, ...]
    delay: float


class Plan(NamedTuple):
    """What a round will be. Everything in it follows from its seed; the machine's scheduler adds the rest."""

    seed: str
    quantity: int
    mode: str
    strikes: tuple[Strike, ...]


def plan(seed: int, number: int) -> Plan:
    """Round `number` (0..) of a run."""
    name = f"{seed}/{number}"
    chance = random.Random(name)
    mode = "pay-before" if number // BLOCK % 3 == 2 else "pay-after"
    strikes = []
    phases = chance.choices([*PHASES], [*PHASES.values()], k=chance.choice((1, 1, 1, 2, 2, 3)))
    for phase in sorted(phases, key=[*PHASES].index):
        victim = chance.choices([*VICTIMS], [*VICTIMS.values()])[0]
        victims = ("supplier", "consumer") if victim == "both" else (victim,)
        strikes.append(Strike(phase, victims, SPANS[phase] * chance.random() ** 2))
        while chance.random() < 0.3:  # and once more while it comes back
            phase = chance.choice(("restart", "resume"))
            strikes.append(Strike(phase, victims, SPANS[phase] * chance.random() ** 2))
    return Plan(name, chance.randint(300, 2_200), mode, tuple(strikes))


class Lost(AssertionError):
    """Something was lost that must not be."""


class Tally:
    """The figures of a run."""

    def __init__(self) -> None:
        self.rounds = 0
        self.kills: Counter[str] = Counter()
        self.by_phase: Counter[str] = Counter()
        self.ticks_acknowledged = 0
        self.ticks_lost = 0
        self.units_of_difference = 0
        self.worst_loss_supplier = 0
        self.worst_loss_consumer = 0
        self.credit_limit = 0
        self.resumed = 0
        self.receipts = 0
        self.looks = 0
        self.alone = 0
        self.transactions = 0
        self.streamed_without_ledger_wh = 0
        self.problems: list[str] = []
        self.began = time.monotonic()

    def document(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "kills": dict(sorted(self.kills.items())),
            "kills_by_phase": dict(sorted(self.by_phase.items())),
            "looks_at_frozen_disks": self.looks,
            "resumed": self.resumed,
            "receipts": self.receipts,
            "closed_by_one_side": self.alone,
            "transactions_found_again": self.transactions,
            "streamed_without_ledger_wh": self.streamed_without_ledger_wh,
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
    """One round: a car of its own, and the strikes of its plan."""

    def __init__(self, scene: Scene, tally: Tally, plan: Plan, side: Side) -> None:
        self.scene, self.tally, self.plan, self.side = scene, tally, plan, side
        self.before = scene.register()
        self.car: Child = self._start_car()
        self.cars = [self.car]
        self.end = time.monotonic() + ROUND

    # ---- driving

    def run(self) -> None:
        """Strike, mend, and see it through to a signed receipt and a channel that is signed off or closed."""
        for strike in self.plan.strikes:
            self._await(strike.phase)
            self._idle(strike.delay)
            self._hit(strike)
        self._see_through()
        self._check_kept()

    def _start_car(self) -> Child:
        return self.scene.start_car(self.side, self.plan.quantity)

    def _again(self) -> None:
        """Start the car anew. The same command: it takes up what it was killed in."""
        if len(self.cars) > TRIES:
            raise Lost(f"the car does not get through: {self.car.errors[-3:]} {self.car.events[-3:]}")
        self.car = self._start_car()
        self.cars.append(self.car)

    def _idle(self, seconds: float) -> None:
        time.sleep(seconds)

    def _poll(self, what: Callable[[], bool], seconds: float = 15.0) -> bool:
        """Poll every few milliseconds; gives up when the car has ended, since nothing more will come."""
        end = min(self.end, time.monotonic() + seconds)
        while not what():
            if not self.car.alive or time.monotonic() > end:
                return what()
            time.sleep(0.003)
        return True

    def _await(self, phase: str) -> None:
        """Wait until the phase begins, or can no longer."""
        scene = self.scene
        if phase == "opening" or phase == "restart":  # at once: whoever was started last is on its way
            return
        if phase == "stream":
            self._poll(lambda: scene.register() > self.before)
        elif phase == "end":
            self._poll(lambda: scene.register() >= self.before + self.plan.quantity - 60)
        elif phase == "settlement":
            self._poll(lambda: any(facts.get("complete") for _, facts in self._pole_events("ended")))
        elif phase == "resume":
            self._poll(lambda: bool(self._pole_events("resumed")) or bool(self.car.said("resumed")), 5.0)

    def _pole_events(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        since = self.cars[0].started
        return [(at, facts) for at, facts in self.scene.pole.events if facts["event"] == name and at > since]

    def _hit(self, strike: Strike) -> None:
        """Freeze the nodes, kill the victims, look at the disks, let the others go on, and start the victims again."""
        scene, tally = self.scene, self.tally
        if strike.victims == ("devnet",):
            self._hit_devnet(strike)
            return
        pole, car = scene.pole, self.car
        # whoever dies first is frozen first; there is no instant at which both are
        for child in (pole, car) if hash(strike.delay) % 2 else (car, pole):
            child.send(signal.SIGSTOP)
        time.sleep(0.001)  # a signal takes effect on the way out of a system call
        dead = {"supplier": pole, "consumer": car}
        for name in strike.victims:
            if dead[name].alive:
                tally.kills[name] += 1
                tally.by_phase[strike.phase] += 1
                dead[name].kill()
        try:
            self.look()
        finally:
            for child in (pole, car):
                child.send(signal.SIGCONT)
        if "supplier" in strike.victims:
            scene.start_pole(self.plan.mode, wait=False)
        if "consumer" in strike.victims and not self.bought():
            self._again()

    def _hit_devnet(self, strike: Strike) -> None:
        """Kill the ledger, see that the stream goes on without it, and that it comes back with all that it said."""
        scene, tally = self.scene, self.tally
        head = scene.rpc("eth_getBlockByNumber", "latest", False)
        scene.devnet.kill()
        tally.kills["devnet"] += 1
        tally.by_phase[strike.phase] += 1
        first = scene.register()
        self._idle(0.25)
        if self.car.said("accepted") and not self.bought():
            tally.streamed_without_ledger_wh += scene.register() - first
        scene.start_devnet()
        again = scene.rpc("eth_getBlockByNumber", head["number"], False)
        if again is None or again["hash"] != head["hash"]:
            raise Lost(f"the devnet said block {head['number']}, and has lost it")

    def bought(self) -> bool:
        """Whether the car holds a receipt that both signed: the same command would begin another session."""
        with suppress(Exception):  # a journal that is being made
            if not (self.side.home / "journal.db").exists():
                return False
            journal = SqliteJournal.open_readonly(self.side.home / "journal.db")
            try:
                return any(row.supplier_signature for row in book.sessions(journal))
            finally:
                journal._reader.close()
        return False

    def _see_through(self) -> None:
        scene = self.scene
        while True:
            self._mend_pole()
            if self.car.alive:
                self.car.until(lambda: not self.car.alive or not scene.pole.alive, 1.0)
            elif self.bought():
                break
            else:
                self._again()
            if time.monotonic() > self.end:
                raise Lost(f"the round does not end: {self.car.events[-3:]}, {scene.pole.events[-3:]}")
        self.tally.resumed += sum(1 for car in self.cars if car.said("resumed"))
        self._settle()

    def _mend_pole(self) -> None:
        """A pole that ended for want of a ledger, or waits to try it again, is started anew."""
        scene, pole = self.scene, self.scene.pole
        last = [facts["event"] for _, facts in pole.events if facts["event"] in ("not settled", "settled")]
        if pole.alive and last[-1:] == ["not settled"]:
            scene.end_pole()
        if not pole.alive:
            scene.start_pole(self.plan.mode)

    def _settle(self) -> None:
        """See the car's channels settled, or closed by the car alone where it had no time to sign them off."""
        while True:
            self._mend_pole()
            with self._journal() as journal:
                rows = [row for row in book.channels(journal) if row.role is Role.CONSUMER]
            states = {row.params.id: self._status(row) for row in rows}
            pending = [row for row in rows if states[row.params.id] == "open" and (row.deposit or self._asked(row))]
            if not pending:
                return
            for row in pending:
                taken = {facts["channel"] for _, facts in self._pole_events("close taken")}
                if row.close is not None and self._pole_has_close(row.params.id):
                    continue
                if book.name_of(row) not in taken:
                    self.tally.alone += 1
                    done = self.scene.command(self.side, "channel", "close", book.name_of(row))
                    if done.code and "nothing to close" not in "".join(done.errors):
                        raise Lost(f"`channel close` fails: {done.errors[-1:]}")
            time.sleep(0.02)
            if time.monotonic() > self.end:
                raise Lost(f"channels do not settle: {states}, {self.scene.pole.events[-4:]}")

    def _asked(self, row: book.ChannelRow) -> bool:
        return row.close is not None

    def _journal(self) -> Any:
        return journal_of(self.side)

    def _pole_has_close(self, channel: bytes) -> bool:
        journal = SqliteJournal.open_readonly(self.scene.pole_side.home / "journal.db")
        try:
            row = book.channel_of(journal, channel)
            return row is not None and row.close is not None
        finally:
            journal._reader.close()

    def _status(self, row: book.ChannelRow) -> str:
        return asyncio.run(_status(self.scene, row))

    # ---- checking

    def look(self) -> None:
        """Both nodes are dead or stopped: compare the pole's disk with what the car was told."""
        tally = self.tally
        tally.looks += 1
        told = Told(self.side.tape)
        with journal_of(self.scene.pole_side) as journal:
            if journal is None:
                return
            self._compare(told, journal)
            found = balances(journal, self.scene.register(), self.side.key.address)
            for digest, one in found.items():
                row = book.session_of(journal, digest)
                assert row is not None
                if one.complete or (row.last is None and row.state == "ended"):
                    continue
                loss = one.supplied - one.secured
                ahead = told.given.get(digest, 0) - one.supplied
                tally.worst_loss_supplier = max(tally.worst_loss_supplier, loss)
                tally.worst_loss_consumer = max(tally.worst_loss_consumer, ahead)
                if max(loss, ahead) > one.limit:
                    self._problem(f"exposure of {loss} and {ahead}, {one.limit} allowed")

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
            stream = book.decode_terms(row.terms.rail_terms)
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

    def _check_kept(self) -> None:
        """After the round: the receipts of both sides are the same, and everything that was acknowledged is there."""
        told = Told(self.side.tape)
        self.scene.pole.send(signal.SIGSTOP)
        try:
            with journal_of(self.scene.pole_side) as pole, self._journal() as car:
                assert pole is not None
                self._compare(told, pole)
                sold = {
                    row.terms.digest(): row for row in book.sessions(pole)
                    if row.role is Role.SUPPLIER and row.terms.consumer == self.side.key.address
                }  # fmt: skip
                bought = {row.terms.digest(): row for row in book.sessions(car)}
        finally:
            self.scene.pole.send(signal.SIGCONT)
        self.tally.ticks_acknowledged += sum(told.secured.values()) // TICK
        signed = {digest: row for digest, row in sold.items() if row.supplier_signature}
        for digest, row in signed.items():
            self.tally.receipts += 1
            if digest not in bought or bought[digest].receipt != row.receipt:
                self._problem("the receipts of both sides differ")
        flowed = self.scene.register() - self.before
        if flowed != self.plan.quantity:
            self._problem(f"{flowed} Wh flowed, {self.plan.quantity} were wanted")

    def _problem(self, text: str) -> None:
        line = f"round {self.plan.seed}: {text}"
        self.tally.problems.append(line)
        print(line, file=sys.stderr, flush=True)


async def _status(scene: Scene, row: book.ChannelRow) -> str:
    ledger = await EvmLedger.connect(
        scene.manifest["url"], parse_address(scene.manifest["contracts"]["CryptoEuroChannel"])
    )
    try:
        return (await ledger.channel(row.params)).status
    finally:
        await ledger.disconnect()


async def _tokens(scene: Scene, sides: list[Side]) -> list[int]:
    """What each side owns outside channels (token units)."""
    ledger = await EvmLedger.connect(
        scene.manifest["url"], parse_address(scene.manifest["contracts"]["CryptoEuroChannel"])
    )
    try:
        return [(await ledger.holdings(side.key.address)).tokens for side in sides]
    finally:
        await ledger.disconnect()


async def _finish(scene: Scene, sides: list[Side]) -> None:
    """End every channel that is not settled with what is in the journals, the pole's first; time passes once."""
    contract = parse_address(scene.manifest["contracts"]["CryptoEuroChannel"])
    ledger = await EvmLedger.connect(scene.manifest["url"], contract)
    journals = [SqliteJournal(side.home / "journal.db") for side in sides]
    left: list[tuple[SqliteJournal, Side, book.ChannelRow]] = []
    latest = 0
    try:
        for side, journal in zip(sides, journals, strict=True):
            for row in book.channels(journal):
                state = await ledger.channel(row.params)
                filing = book.filing_of(journal, row)
                if state.status == "open" or (state.status == "closing" and filing is not None):
                    _, state = await ending.close(journal, ledger, side.key, row)
                if state.status == "closing":
                    latest = max(latest, state.closes_at)
                    left.append((journal, side, row))
        now = int(scene.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        scene.rpc("evm_increaseTime", max(0, latest - now) + 1)
        scene.rpc("evm_mine")
        for journal, side, row in left:
            if (await ledger.channel(row.params)).status == "closing":
                await ending.settle(journal, ledger, side.key, row)
    finally:
        for journal in journals:
            await journal.close()
        await ledger.disconnect()


def _audit(scene: Scene, tally: Tally, sides: list[Side], before: list[int]) -> None:
    """The chain against both books: what each car paid is what it signed, and what the pole got is their sum."""
    after = asyncio.run(_tokens(scene, sides))
    journal = SqliteJournal.open_readonly(scene.pole_side.home / "journal.db")
    total = 0
    hashes = {one.hash for row in book.channels(journal) for one in row.mined}
    for side, now, then in zip(sides[1:], after[1:], before[1:], strict=True):
        own = SqliteJournal.open_readonly(side.home / "journal.db")
        receipts = [row.receipt for row in book.sessions(own) if row.receipt and row.supplier_signature]
        hashes |= {one.hash for row in book.channels(own) for one in row.mined}
        paid = sum(receipt.paid for receipt in receipts)
        worth = sum(held(journal, row.params.id) for row in book.channels(own))
        difference = max(abs(then - now - paid), abs(then - now - worth))
        if difference:
            tally.problems.append(f"{side.home.name}: paid {then - now}, signed {paid}, the pole holds {worth}")
        tally.units_of_difference += difference
        total += then - now
        own._reader.close()
    tally.units_of_difference += abs(after[0] - before[0] - total)
    for one in hashes:
        receipt = scene.rpc("eth_getTransactionReceipt", "0x" + one.hex())
        if receipt is None or receipt["status"] != "0x1":
            tally.problems.append(f"transaction 0x{one.hex()} was mined, and is gone")
    tally.transactions = len(hashes)
    journal._reader.close()


def run(rounds: int, seed: int, directory: Path, only: list[int] | None = None) -> dict[str, Any]:
    """Play rounds; `only` plays just those numbers. The figures, as they are printed."""
    tally = Tally()
    scene = Scene(directory)
    tally.credit_limit = scene.credit_limit
    numbers = only if only is not None else [*range(rounds)]
    try:
        plans = [plan(seed, number) for number in numbers]
        sides = [scene.pole_side, *(scene.side(f"car{number}") for number in numbers)]
        before = asyncio.run(_tokens(scene, sides))
        mode = plans[0].mode
        scene.start_pole(mode)
        for played, side in zip(plans, sides[1:], strict=True):
            if played.mode != mode:
                mode = played.mode
                scene.end_pole()
                scene.start_pole(mode)
            began = time.monotonic()
            try:
                Round(scene, tally, played, side).run()
            except Lost as lost:
                tally.problems.append(f"round {played.seed}: {lost}")
                print(tally.problems[-1], file=sys.stderr, flush=True)
                scene.nursery.quiet()
                scene.devnet = scene.start_devnet()
                scene.start_pole(mode)
            tally.rounds += 1
            strikes = " ".join(f"{one.phase}:{'+'.join(one.victims)}" for one in played.strikes)
            print(
                f"round {played.seed} {played.mode} {played.quantity} Wh {strikes}: {time.monotonic() - began:.1f} s; "
                f"{tally.ticks_acknowledged} ticks acknowledged, {tally.ticks_lost} lost",
                file=sys.stderr,
                flush=True,
            )
        scene.end_pole()
        asyncio.run(_finish(scene, sides))
        _audit(scene, tally, sides, before)
    finally:
        scene.close()
    return tally.document()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", type=int, nargs="*", help="play these rounds of the run alone")
    parser.add_argument("--keep", type=Path, help="keep homes, tapes and chain in this directory")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr, flush=True)
    if asked.keep is not None:
        asked.keep.mkdir(parents=True)
        document = run(asked.rounds, asked.seed, asked.keep, asked.only)
    else:
        with tempfile.TemporaryDirectory() as directory:
            document = run(asked.rounds, asked.seed, Path(directory), asked.only)
    print(json.dumps({"seed": asked.seed, **document}, indent=2))
    worst = max(document["worst_loss_supplier"], document["worst_loss_consumer"])
    lost = document["ticks_lost"] or document["units_of_difference"] or document["problems"]
    sys.exit(bool(lost) or worst > document["credit_limit"])


if __name__ == "__main__":
    main()
