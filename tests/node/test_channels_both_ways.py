"""One channel that pays both ways: opened, taken, spent to and fro, and ended by whoever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import pytest

from penstock.core.channel import Close, Domain
from penstock.core.codec import encode
from penstock.core.errors import BadTerms, LedgerUnreachable, OutOfFunds, PeerRefused, UsageError
from penstock.core.identity import Address, Key, parse_address
from penstock.core.messages import AskClose, Reason
from penstock.core.ports import Ledger
from penstock.ledgers.devnet.manifest import Manifest
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, clock, ending, lookout, upkeep
from penstock.node.book import SECRET_ROWS
from penstock.node.channel_till import ChannelTill
from penstock.node.handover import consented
from penstock.node.tasks import Tasks
from penstock.node.watch import Watch
from penstock.rails.stream import EARNED_ROWS, PAID_ROWS, TICK_ROWS, StreamBack, decode_terms
from penstock.sim.chain import Chain
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.tender import SimLedger
from penstock.sim.virtual import VirtualLoop
from penstock.storage.sqlite import SqliteJournal

from .deal import DEPOSIT, FEED_TICK, Deal, offer_of, payee_of, payer_of
from .world import Told, until

DOMAIN = Domain(31_337, Address(b"\x11" * 20), Address(b"\x22" * 20))
CAR, POLE = Key(b"\x01" * 32), Key(b"\x02" * 32)
WEALTH = 10_000_000  # token units that each has


class Scene:
    """A car and a pole on a chain of their own, in time that passes when nothing else does."""

    def __init__(self, loop: VirtualLoop, chain: Chain) -> None:
        self.loop, self.chain = loop, chain
        self.life = Life("test", loop)
        self.disks = Disk(), Disk()
        self.ledger = SimLedger(chain, DOMAIN, self.life, lambda: 0.01)
        self.told = Told()
        self.tasks = Tasks()
        self.car_journal = MemoryJournal(self.disks[0], self.life)
        self.till = self.opened()
        self.deal = Deal(self.ledger, loop.instant, (CAR, self.car_journal), self.till, self.told)

    def opened(self, stake: int = 0) -> ChannelTill:
        """The pole's till, over its journal."""
        journal = MemoryJournal(self.disks[1], self.life)
        entropy = Random(1).randbytes
        return ChannelTill(POLE, journal, self.ledger, self.loop.instant, self.told, entropy=entropy, stake=stake)

    def gained(self, key: Key) -> int:
        """What this one has outside channels more than it began with."""
        accounts = self.chain.head.accounts
        return accounts.wallets[key.address] + accounts.balances[key.address] - WEALTH

    def paid(self) -> tuple[int, int]:
        """What the contract has paid to the car and to the pole from their channel."""
        return self.chain.head.accounts.channels[self.deal.params.id].paid


def played(lives: Callable[[Scene], Awaitable[None]]) -> None:
    """Run a scene to its end, with no token made or lost, and every record in both journals in order."""
    loop = VirtualLoop()
    chain = Chain(loop, Random(1))
    for key in (CAR, POLE):
        chain.fund(key.address, WEALTH)

    async def main() -> None:
        mining = asyncio.ensure_future(chain.run())
        scene = Scene(loop, chain)
        await lives(scene)
        await scene.tasks.cancel()
        mining.cancel()
        assert [list(upkeep.problems(disk)) for disk in scene.disks] == [[], []]
        accounts = chain.head.accounts
        held = sum(channel.held for channel in accounts.channels.values())
        assert sum(accounts.wallets.values()) + sum(accounts.balances.values()) + held == 2 * WEALTH

    loop.run(main())


async def _charge_and_discharge(deal: Deal) -> None:
    """The car pays 30,000, feeds in for 24,000, and pays 40,000 again: more than it ever put in."""
    await deal.pay(30_000)
    await deal.pay(24_000, back=True)
    await deal.pay(40_000)


def test_what_went_to_and_fro_is_closed_together_in_one_transaction() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await _charge_and_discharge(deal)
        await deal.finish()
        ask = await deal.sign_off()
        assert ask.close == Close(DEPOSIT - 46_000, 46_000, ask.close.expiry)
        await scene.till.take_close(ask)
        mined = await scene.till.settle()
        assert len(mined) == 1
        assert len(deal.rows()[0].mined) == 1, "one opening"
        assert (scene.gained(CAR), scene.gained(POLE)) == (-46_000, 46_000)

    played(lives)


def test_the_next_session_begins_where_both_directions_stand() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await _charge_and_discharge(deal)
        await deal.finish()
        first = deal.params
        await deal.begin(need=4_000)
        assert deal.params == first
        stream = decode_terms(deal.terms.rail_terms)
        assert (stream.amount, stream.back) == (70_000, StreamBack(stream.back.nonce, 24_000, FEED_TICK))  # type: ignore[union-attr]  # it is there
        assert payer_of(deal.mine).capacity == payee_of(deal.theirs).capacity == 4_000
        assert payer_of(deal.theirs).capacity == payee_of(deal.mine).capacity == 46_000
        await deal.pay(45_960, back=True)
        assert payer_of(deal.mine).capacity == 4_000 + 45_960
        await deal.finish()
        await deal.begin(need=49_960, two_way=False)
        assert deal.params == first, "it serves one way, too"
        assert deal.theirs.payer is deal.mine.payee is None
        await deal.pay(49_900)
        with pytest.raises(OutOfFunds):
            payer_of(deal.mine).square(49_961)
        await deal.finish()
        await scene.till.take_close(await deal.sign_off())
        await scene.till.settle()
        assert scene.gained(POLE) == 46_000 - 45_960 + 49_900 == -scene.gained(CAR)

    played(lives)


def test_a_one_way_channel_does_not_serve_a_flow_that_may_turn_round() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin(two_way=False)
        await deal.finish()
        one_way = deal.rows()[0]
        await deal.begin()
        assert deal.params.id != one_way.params.id
        assert deal.params.two_way
        deal.leave()
        forged = encode(msgspec.structs.replace(decode_terms(deal.terms.rail_terms), params=one_way.params, back=None))
        with pytest.raises(BadTerms, match="worth"):
            await deal.begin(details=forged)

    played(lives)


@pytest.mark.parametrize(
    ("nonce", "amount", "tick", "said"),
    [(1, 0, 0, "promised"), (0, -600, 0, "promised"), (0, 600, 0, "promised"), (0, 0, 1, "worth")],
)
def test_terms_that_say_otherwise_than_our_books_what_we_promised_are_refused(
    nonce: int, amount: int, tick: int, said: str
) -> None:
    """Rule 7: what backs a voucher is what the payee knows to have promised, and not what the payer says."""

    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await _charge_and_discharge(deal)
        await deal.finish()
        stream = decode_terms(await scene.deal.purse.fund(offer_of(scene.till, scene.loop.instant()), 100, True))
        assert stream.back is not None
        back = StreamBack(stream.back.nonce + nonce, stream.back.amount + amount, FEED_TICK + tick)
        with pytest.raises(BadTerms, match=said):
            await deal.begin(details=encode(msgspec.structs.replace(stream, back=back)))
        await deal.begin(need=100)

    played(lives)


def test_a_channel_whose_session_broke_off_while_it_paid_back_is_used_no_more() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await deal.pay(30_000)
        await deal.pay(6_000, back=True)
        deal.leave()
        broken = deal.params
        stream = decode_terms(deal.terms.rail_terms)
        paid = book.paid_of(scene.disks[1], broken.id)
        assert paid is not None
        back = StreamBack(paid.note.voucher.nonce, paid.note.voucher.amount, FEED_TICK)
        forged = encode(msgspec.structs.replace(stream, amount=30_000, back=back))
        with pytest.raises(BadTerms, match="broke off"):
            await deal.begin(details=forged)
        await deal.begin()
        assert deal.params.id != broken.id

    played(lives)


def test_two_processes_that_died_take_up_both_directions() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await deal.again()
        await deal.pay(30_000, fold=False)
        await deal.again()
        await deal.pay(0)
        await deal.pay(6_000, back=True, fold=False)
        await deal.again()
        assert [payer_of(ends).paid for ends in (deal.mine, deal.theirs)] == [30_000, 6_000]
        await deal.pay(20_000)
        await deal.again()
        await deal.pay(24_000, back=True)
        await deal.again()
        await deal.finish()
        await scene.till.take_close(await deal.sign_off())
        await scene.till.settle()
        assert scene.gained(POLE) == 20_000 == -scene.gained(CAR)

    played(lives)


def test_a_supplier_that_pays_back_uses_no_seed_twice() -> None:
    """Rule 14: what is revealed is never derived again, on the side of the supplier either."""

    async def lives(scene: Scene) -> None:
        deal = scene.deal
        secrets, roots = set(), set()
        for _ in range(3):
            await deal.begin(need=40_000)
            await deal.pay(3_000)
            for amount in (600, 60, 120):
                await deal.pay(amount, back=True)
            earned, _ = book.earned_of(scene.disks[0], deal.params.id)
            assert earned is not None
            roots.add(earned.note.locks[0].root)
            secrets.add(book.one(scene.disks[1], SECRET_ROWS + deal.terms.digest()))
            await deal.finish()
        assert len(secrets - {None}) == len(roots) == 3

    played(lives)


def test_both_directions_of_a_channel_have_rows_of_their_own_in_either_journal() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await deal.pay(3_000)
        await deal.pay(600, back=True)
        await deal.pay(100, fold=False)
        await deal.pay(60, back=True, fold=False)
        car, pole = scene.disks
        for disk in (car, pole):
            for prefix in (PAID_ROWS, EARNED_ROWS, TICK_ROWS):
                assert book.one(disk, prefix + deal.params.id), prefix
        ours, theirs = deal.rows()
        notes = [
            book.last_note(disk, row, back) for disk, row in ((car, ours), (pole, theirs)) for back in (False, True)
        ]
        assert notes[:2] == notes[2:]
        shown = [book.evidence_of(disk, deal.params.id) for disk in (car, pole)]
        assert [one.partner if one else None for one in shown] == [False, True]
        for one in shown:
            assert one is not None
            one.check()
        assert (book.share_of(car, ours), book.share_of(pole, theirs)) == (DEPOSIT - 3_000 + 660, 3_100 - 600)

    played(lives)


def test_a_close_that_pays_less_than_our_share_is_refused() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await _charge_and_discharge(deal)
        await deal.finish()
        channel, expiry = deal.params, int(scene.loop.instant() // 1000) + 86_400
        for opener, partner, said in (
            (4_001, 45_999, "46000 are ours"),
            (4_001, 46_000, "do not sum"),
            (DEPOSIT, 0, "46000 are ours"),
        ):
            close = Close(opener, partner, expiry)
            with pytest.raises(PeerRefused, match=said):
                await scene.till.take_close(AskClose(channel.id, close, CAR.sign(close.digest(channel))))
        fair = Close(4_000, 46_000, expiry)
        await scene.till.take_close(AskClose(channel.id, fair, CAR.sign(fair.digest(channel))))
        assert deal.rows()[1].over

    played(lives)


def test_a_pole_that_withholds_what_it_promised_is_answered_by_the_car_that_streams() -> None:
    async def lives(scene: Scene) -> None:
        deal, stops = scene.deal, list[Reason]()
        await deal.begin()
        scene.tasks.start(deal.purse.guard(deal.terms, stops.append, scene.loop.instant))
        await _charge_and_discharge(deal)
        await deal.pay(600, back=True, fold=False)
        await asyncio.sleep(300)
        assert stops == []
        filing = book.filing_of(scene.disks[1], deal.rows()[1])
        await scene.ledger.close(POLE, deal.params, filing)
        await asyncio.sleep(3_600 + 900)
        assert stops[0] is Reason.CHANNEL_CLOSING
        assert scene.paid() == (DEPOSIT - 46_000 + 600, 46_000 - 600)

    played(lives)


def test_a_car_whose_session_ended_for_a_close_leaves_when_it_has_answered() -> None:
    async def lives(scene: Scene) -> None:
        deal, stops = scene.deal, list[Reason]()
        await deal.begin()
        await _charge_and_discharge(deal)
        guarding = scene.tasks.start(deal.purse.guard(deal.terms, stops.append, scene.loop.instant))
        await asyncio.sleep(1)
        await scene.ledger.close(POLE, deal.params, book.filing_of(scene.disks[1], deal.rows()[1]))
        while not stops:  # noqa: ASYNC110 - no event tells of it, and the time is not real
            await asyncio.sleep(0.01)
        await deal.finish()
        guarding.cancel()
        with suppress(asyncio.CancelledError):
            await guarding
        filed = await scene.ledger.filed(deal.params, partner=False)
        assert (filed.present, filed.amount) == (True, 24_000)

    played(lives)


def test_a_car_that_closes_alone_files_what_it_holds_and_the_pole_answers() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        scene.till.start(scene.tasks)
        await deal.begin()
        await _charge_and_discharge(deal)
        await deal.pay(60, back=True, fold=False)
        row = deal.rows()[0]
        with pytest.raises(UsageError, match="not our side"):
            await ending.close(scene.car_journal, scene.ledger, POLE, row)
        _, state = await ending.close(scene.car_journal, scene.ledger, CAR, row)
        assert state.status == "closing"
        assert (await scene.ledger.filed(row.params, partner=False)).amount == 24_060
        await asyncio.sleep(3_600 + 900)
        assert scene.paid() == (DEPOSIT - 46_000 + 60, 46_000 - 60)
        assert deal.rows()[1].settled

    played(lives)


def test_whoever_closes_alone_on_a_sleeping_side_gets_what_is_answered_for_by_its_watcher() -> None:
    """The car's own journal is enough for a watcher, or what it handed over."""

    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await _charge_and_discharge(deal)
        await deal.finish()
        watcher = Key(b"\x09" * 32)
        handed = consented(scene.disks[0], CAR, [deal.rows()[0]])
        assert [one.partner for one in handed] == [False]
        for key, shown in ((watcher, handed[0]), (CAR, book.evidence_of(scene.disks[0], deal.params.id))):
            assert shown is not None
            shown.check()

            async def connect(_: Domain) -> Ledger:
                return scene.ledger

            watch = Watch(key, lambda shown=shown: {shown.params.id: shown}, connect, scene.told)  # type: ignore[misc]  # what is shown now
            watching = scene.tasks.start(watch.run(asyncio.Event(), every=60, once=True))
            if key == watcher:
                await asyncio.sleep(120)
                watching.cancel()
        await scene.ledger.close(POLE, deal.params, book.filing_of(scene.disks[1], deal.rows()[1]))
        await asyncio.wait_for(watching, 3_600 + 900)
        assert scene.paid() == (DEPOSIT - 46_000, 46_000)
        assert watch.lost == 0

    played(lives)


def test_a_car_whose_ledger_is_out_of_reach_feeds_in_for_half_a_challenge_period_at_most() -> None:
    async def lives(scene: Scene) -> None:
        deal, stops = scene.deal, list[Reason]()
        await deal.begin()

        async def gone() -> Ledger:
            raise LedgerUnreachable("nobody there")

        deal.purse._ledger = gone
        guarding = scene.tasks.start(deal.purse.guard(deal.terms, stops.append, scene.loop.instant))
        await asyncio.sleep(1_700)
        assert stops == []
        assert scene.told.of("ledger not seen")
        await asyncio.sleep(200)
        assert stops[0] is Reason.LEDGER_UNSEEN
        guarding.cancel()

    played(lives)


def test_a_supplier_with_a_stake_pays_before_it_has_earned() -> None:
    async def lives(scene: Scene) -> None:
        till, deal = scene.opened(stake=20_000), scene.deal
        deal.till = till
        till.start(scene.tasks)
        await deal.begin(need=30_000)
        assert payer_of(deal.theirs).capacity == payee_of(deal.mine).capacity == 0
        guarding = scene.tasks.start(deal.purse.guard(deal.terms, lambda reason: None, scene.loop.instant))
        till.begin(deal.terms, lambda reason: None)
        await asyncio.sleep(60)
        assert payer_of(deal.theirs).capacity == payee_of(deal.mine).capacity == 20_000
        till.begin(deal.terms, lambda reason: None)  # once in a channel's life
        await deal.pay(12_000, back=True)
        assert payer_of(deal.mine).capacity == 30_000 + 12_000
        await deal.again()
        await deal.pay(600, back=True)
        await asyncio.sleep(60)
        await deal.finish()
        guarding.cancel()
        assert [row.partner_deposit for row in deal.rows()] == [20_000, 20_000]
        ask = await deal.sign_off()
        assert ask.close == Close(30_000 + 12_600, 20_000 - 12_600, ask.close.expiry)
        await till.take_close(ask)
        await till.settle()
        assert (scene.gained(CAR), scene.gained(POLE)) == (12_600, -12_600)

    played(lives)


def test_a_supplier_stakes_no_more_than_its_consumer() -> None:
    async def lives(scene: Scene) -> None:
        till, deal = scene.opened(stake=20_000), scene.deal
        deal.till = till
        till.start(scene.tasks)
        await deal.begin(need=4_000)
        till.begin(deal.terms, lambda reason: None)
        await asyncio.sleep(60)
        assert payer_of(deal.theirs).capacity == 4_000

    played(lives)


def test_a_stake_that_the_ledger_does_not_take_stops_nothing() -> None:
    async def lives(scene: Scene) -> None:
        till, deal = scene.opened(stake=20_000), scene.deal
        deal.till = till
        till.start(scene.tasks)
        await deal.begin()
        other = deal.params.id[:20]  # somebody who has the pole's money
        for one in (scene.chain.head, scene.chain.final):
            one.accounts.wallets[Address(other)] += one.accounts.wallets[POLE.address]
            one.accounts.wallets[POLE.address] = 0
        till.begin(deal.terms, lambda reason: None)
        await asyncio.sleep(60)
        assert scene.told.of("stake not added")
        assert not deal.rows()[1].staked
        await _charge_and_discharge(deal)
        await deal.finish()
        await till.take_close(await deal.sign_off())
        await till.settle()
        assert scene.gained(POLE) == 46_000 - WEALTH

    played(lives)


def test_a_restored_journal_pays_through_no_two_way_channel_on_either_side() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await deal.pay(30_000)
        await deal.pay(6_000, back=True)
        now = scene.loop.instant()
        assert await upkeep.retire(scene.till.journal, now) == 1
        assert book.unfinished(scene.disks[1], deal.rows()[1].role) == []
        assert deal.rows()[1].over
        with pytest.raises(UsageError, match="backup"):
            await ending.close(scene.till.journal, scene.ledger, POLE, deal.rows()[1])
        restored = ChannelTill(POLE, scene.till.journal, scene.ledger, scene.loop.instant, scene.told)
        stream = msgspec.structs.replace(decode_terms(deal.terms.rail_terms), amount=30_000)
        deal.till = restored
        with pytest.raises(BadTerms, match="backup"):
            await deal.begin(details=encode(stream))
        before = deal.params
        assert await upkeep.retire(deal.journal, now) == 1
        assert deal.rows()[0].over
        deal.till = restored
        await deal.begin()
        assert deal.params.id != before.id

    played(lives)


def test_what_somebody_withdrew_pays_nobody() -> None:
    async def lives(scene: Scene) -> None:
        deal = scene.deal
        await deal.begin()
        await deal.finish()
        channel = scene.chain.head.accounts.channels[deal.params.id]
        assert channel.status == "open"
        for block in (scene.chain.head, scene.chain.final):
            block.accounts.channels[deal.params.id].paid = (0, 10)
        with pytest.raises(BadTerms, match="withdrawn"):
            await deal.begin()
        for block in (scene.chain.head, scene.chain.final):
            block.accounts.channels[deal.params.id].paid = (0, 0)

    played(lives)


# ---- on a real chain


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LONGEST", 0.1)
    monkeypatch.setattr(lookout, "SHORTEST", 0.1)


@pytest.mark.asyncio
@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("closer", ["the pole", "the car", "both"])
async def test_whoever_ends_it_a_real_contract_pays_each_side_its_share(
    devnet: Manifest, fresh_key: Callable[[], Key], tmp_path: Path, closer: str
) -> None:
    """The pole closes with what the car promised and hides its own promise; the car closes alone; both together."""
    car, pole, told, tasks, stops = fresh_key(), fresh_key(), Told(), Tasks(), list[Reason]()
    ledger = await EvmLedger.connect(devnet.url, parse_address(devnet.contracts["CryptoEuroChannel"]))
    journals = SqliteJournal(tmp_path / "car.db"), SqliteJournal(tmp_path / "pole.db")
    before = [(await ledger.holdings(key.address)).tokens for key in (car, pole)]
    try:
        till = ChannelTill(pole, journals[1], ledger, clock.now, told)
        deal = Deal(ledger, clock.now, (car, journals[0]), till, told)
        await deal.begin()
        await _charge_and_discharge(deal)
        if closer == "the pole":
            await deal.pay(540, back=True, fold=False)
            tasks.start(deal.purse.guard(deal.terms, stops.append, clock.now))
            await ledger.close(pole, deal.params, book.filing_of(journals[1], deal.rows()[1]))
            await until(lambda: stops, "the session goes on")
        elif closer == "the car":
            await deal.pay(540, back=True)
            till.start(tasks)
            await ending.close(journals[0], ledger, car, deal.rows()[0])
        else:
            await deal.pay(540, back=True)
            await deal.finish()
            await till.take_close(await deal.sign_off())
            await till.settle()
        if closer != "both":
            await until(lambda: told.of("filed"), "nobody answers")
            await _pass(ledger, 2 * 3_600)
            await until(lambda: told.of("paid out"), "nobody settles")
        after = [(await ledger.holdings(key.address)).tokens for key in (car, pole)]
        assert [now - then for now, then in zip(after, before, strict=True)] == [-46_000 + 540, 46_000 - 540]
        assert [row for journal in journals for row in upkeep.problems(journal)] == []
    finally:
        await tasks.cancel()
        for journal in journals:
            await journal.close()
        await ledger.disconnect()


async def _pass(ledger: EvmLedger, seconds: int) -> None:
    """Let so much of the chain's time pass."""
    await ledger._node.ask("evm_increaseTime", seconds)
    await ledger._node.ask("evm_mine")
