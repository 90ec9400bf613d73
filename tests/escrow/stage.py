"""What the moves are made of: a life, escrows that fit, readings honest and not, and the sending of calls."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from penstock.core.escrow import (
    EscrowParams,
    MeterReading,
    authorization_nonce,
    deposit_digest,
    end_digest,
    tariff_hash,
)
from penstock.core.identity import Key
from penstock.core.tariff import Bill, Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.sim.escrow_model import Escrow

from ..contracts.world import NO_SIGNATURE, START
from .ground import FLAT, ground
from .invariants import Papers, worth_of
from .play import Call, Play
from .spoil import spoil
from .words import abi_params, abi_reading, abi_tariff

HOUR, MINUTE = 3_600, 60
WINDOWS = (0, MINUTE, HOUR)
YEAR = 365 * 24 * HOUR
LIVES = (HOUR, 2 * HOUR, 8 * HOUR, 8 * HOUR, YEAR, YEAR + 1, 0)  # seconds to the deadline; the last two are refused
EVENING, NIGHT = Instant(START * 1_000 + 3_000), Instant(START * 1_000 + 8_000)
TARIFFS = (
    FLAT,
    Tariff(4, (Step(Instant(0), 3), Step(EVENING, 7), Step(NIGHT, 2))),
    Tariff(1, (Step(Instant(0), 2**90), Step(EVENING, 2**96 - 1))),  # dear: any reading takes the whole deposit
    Tariff(0, (Step(Instant(0), 1),)),  # void: nothing can be computed with it
)
# What a reading can say that its meter must not say after the one before, or that does not fit; the first two are no
# lies, unless more is signed after them.
LAST, SAME_SEQUENCE, LESS, EARLIER, OTHER_TURNS, TOO_MUCH, LAST_FROM_AHEAD, BILLED_ANEW, NOTHING = range(1, 10)
DEPOSITS = ("deposit", "deposit_from_balance", "deposit_with_permit", "deposit_with_authorization", "deposit_signed")


class Stage(RuleBasedStateMachine):
    """A life, and how things are done in it."""

    def __init__(self) -> None:
        super().__init__()
        self.play = self.begin()

    def begin(self) -> Play:
        """A new life."""
        return Play()

    def teardown(self) -> None:
        if self.play.sound:
            self.play.end()

    def _deposit(
        self, at: int, how: int, pair: int, kind: int, sum_: int, terms: int, skip: int, noise: int
    ) -> Papers | None:
        """Make an escrow by one of the five ways; returns it where it was made."""
        name, people, g = DEPOSITS[how], ground().traders, ground()
        at = at if how < 2 or skip == 3 else 0  # the other token knows no permits and no authorizations
        law = self.play.laws[at]
        payer, payee = people[pair % 3], people[(pair % 3 + 1 + pair // 3) % 3]
        own_keys = terms // 21 % 2 == 1
        params = EscrowParams(
            law.domain,
            payer.address,
            payee.address,
            g.end_keys[payer.address].address if own_keys else payer.address,
            g.end_keys[payee.address].address if own_keys else payee.address,
            g.meters[payee.address].address if skip else g.meters[payer.address].address,
            tariff_hash(TARIFFS[kind]),
            deposit=sum_,
            deadline=self.play.now + LIVES[terms % 7],
            window=WINDOWS[terms // 7 % 3],
            counter=max(0, len(self.play.papers) - (skip == 1)),
        )
        fee, expiry, caller = skip, self._until(noise), payer
        args: tuple[Any, ...] = (abi_params(params),)
        if name == "deposit_with_permit":
            permit = law.permit(payer.address, sum_, law.accounts.permits[payer.address], expiry)
            args = (*args, expiry, self.play.seals.sign(payer, permit))
        elif name == "deposit_with_authorization":
            digest = law.authorization(payer.address, sum_ + fee, 0, expiry, authorization_nonce(params, fee))
            caller, args = self._anybody(noise), (*args, fee, 0, expiry, self.play.seals.sign(payer, digest))
        elif name == "deposit_signed":
            signature = self.play.seals.pack(payer, deposit_digest(params, fee, expiry))
            caller, args = self._anybody(noise), (*args, fee, expiry, signature)
        self._send(Call(at, caller, name, args), noise)
        papers = self.play.papers.get(params.id)
        if papers is not None:
            papers.tariff = TARIFFS[kind]
        return papers

    # How moves are made

    def _send(self, call: Call, noise: int) -> None:
        """Send it, and perhaps something broken before, or something else than it at all."""
        kind, rest = noise % 16, noise // 16
        if kind == 15:
            self.play.sent.append(call)  # somebody will send it later
            return
        if kind > 9:
            broken = spoil(call, kind - 10, rest, self.play)
            if broken is not None:
                self.play.act(broken)
        self.play.act(call)
        self.play.sent.append(call)

    @property
    def _papers(self) -> list[Papers]:
        return [papers for papers in self.play.papers.values() if self.play.knows(papers.params)]

    def _escrow(self, pick: int, waits: bool = False, oldest: bool = False) -> tuple[Papers, Escrow]:
        """One that takes readings (or one with a claim that waits), made if there is none; now and then any.

        One of the two newest, so that much happens to a few; or one of the two oldest.
        """
        some = [papers for papers in self._papers if self._fits(papers, waits)]
        if not some:
            made = self._deposit(pick % 2, 1 - pick % 2, pick % 6, pick % 2, 20, 9 + pick % 2 * 7, 4, 0)
            some = [made] if made is not None else []
            if waits and made is not None:
                self._file(made, self._reading(made, 0, 3, 2_000, 0), 0)
        if pick > 9 or not some:
            some = self._papers
        papers = some[pick % 2 % len(some)] if oldest else some[-1 - pick % 2 % len(some)]
        return papers, self.play.escrow(papers)

    def _fits(self, papers: Papers, waits: bool) -> bool:
        escrow = self.play.escrow(papers)
        if waits:
            return escrow.waiting > 0 and escrow.closed != "contested"
        return escrow.takes_readings(self.play.now)

    def _wait_until(self, edge: int) -> None:
        """Let it be that time, where it is not far."""
        if self.play.now < edge < self.play.now + 9 * HOUR:
            self.play.wait(edge - self.play.now)

    def _reading(self, papers: Papers, stale: int, more: int, later: int, lie: int) -> MeterReading:
        """One that the meter has signed (stale above 2), or its next one; with a lie, where `lie` names one."""
        signed = papers.readings
        if signed and stale > 2:
            return signed[-1 - (stale + more) % len(signed)]
        before = self._newest(papers) or MeterReading(0, Instant(START * 1_000), Quantity(0))
        reading = self._next(papers.tariff, before, more, later, last=lie == LAST)
        if lie == SAME_SEQUENCE:
            reading = MeterReading(max(1, before.sequence), reading.at, reading.total, reading.turns, reading.last)
        elif lie == LESS:
            reading = self._next(papers.tariff, before, -more, later, last=False)
        elif lie == NOTHING:
            reading = self._next(papers.tariff, before, -before.total, later, last=False)
        elif lie == EARLIER:
            reading = self._next(papers.tariff, before, more, -later, last=False)
        elif lie == OTHER_TURNS:
            turns = tuple(Quantity(max(0, turn - 1)) for turn in reading.turns) or (Quantity(0),)
            reading = MeterReading(reading.sequence, reading.at, reading.total, turns, reading.last)
        elif lie == TOO_MUCH:
            reading = MeterReading(reading.sequence, reading.at, Quantity(2**63 - 1 + more % 2), reading.turns)
        elif lie == BILLED_ANEW and len(before.turns) + 1 < len(papers.tariff.steps):
            # A step that took effect before the meter had counted what it counted before the step.
            at = max(before.at, papers.tariff.steps[len(before.turns) + 1].start)
            turn = Quantity(max([0, *before.turns[-1:], before.total - 1]))
            reading = MeterReading(reading.sequence, Instant(at), reading.total, (*before.turns, turn))
        elif lie == LAST_FROM_AHEAD:
            reading = MeterReading(before.sequence + 9, reading.at, reading.total, reading.turns, last=True)
        self._sign(papers, reading)
        return reading

    def _newest(self, papers: Papers) -> MeterReading | None:
        """What the meter said last, of what fits the tariff."""
        fitting = worth_of(self.play.escrow(papers), papers)
        return max(fitting, key=lambda reading: reading.sequence, default=None)

    def _sign(self, papers: Papers, reading: MeterReading) -> None:
        if reading not in papers.readings:
            papers.readings.append(reading)
            self.play.look()  # from now on somebody else is sure of it

    def _next(self, tariff: Tariff, before: MeterReading, more: int, later: int, last: bool) -> MeterReading:
        """What the meter says after `before`, its turns made where the tariff's steps begin."""
        total, at = Quantity(max(0, before.total + more)), Instant(max(0, before.at + later))
        bill = Bill(tariff, before.turns)
        if not before.turns or total >= before.turns[-1]:
            bill.turn(total, at)
        return MeterReading(before.sequence + 1, at, total, bill.turns, last)

    def _file(self, papers: Papers, reading: MeterReading, noise: int, caller: Key | None = None) -> None:
        meter = self.play.key(papers.params.meter)
        signature = self.play.seals.sign(meter, reading.digest(papers.params))
        args = (abi_params(papers.params), abi_tariff(papers.tariff), abi_reading(reading), signature)
        self._send(Call(papers.at, caller or self.play.key(papers.params.payee), "release", args), noise)

    def _contest(self, papers: Papers, pair: tuple[MeterReading, MeterReading], noise: int) -> None:
        meter, args = self.play.key(papers.params.meter), [abi_params(papers.params), abi_tariff(papers.tariff)]
        for reading in pair:
            args += [abi_reading(reading), self.play.seals.sign(meter, reading.digest(papers.params))]
        self._send(Call(papers.at, self._anybody(noise), "contest", tuple(args)), noise)

    def _ends(self, papers: Papers, amount: int, signers: int) -> tuple[Any, ...]:
        """What both sign (signers 0 or 3), or the payer (1) or the payee (2) alone."""
        digest = end_digest(papers.params, amount)
        signatures = [
            self.play.seals.sign(self.play.key(key), digest) if signers in (0, 3, 1 + side) else NO_SIGNATURE
            for side, key in enumerate((papers.params.payer_key, papers.params.payee_key))
        ]
        return (abi_params(papers.params), amount, *signatures)

    def _liars(self, papers: Papers, noise: int) -> tuple[MeterReading, MeterReading] | None:
        """Two readings of an escrow that contradict each other."""
        fitting = list(worth_of(self.play.escrow(papers), papers))
        pairs = [(one, two) for at, one in enumerate(fitting) for two in fitting[:at] if one.contradicts(two)]
        return pairs[noise // 16 % len(pairs)] if pairs else None

    def _anybody(self, noise: int) -> Key:
        return self.play.people[noise // 16 % 4]

    def _until(self, noise: int) -> int:
        """When a signature expires: mostly later, but now and then in this second, or in the one before."""
        return self.play.now + (-1, 0, HOUR, HOUR, HOUR, HOUR, HOUR)[noise // 16 % 7]
