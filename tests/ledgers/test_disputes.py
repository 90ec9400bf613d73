"""Disputes as a watcher lives through them, against a real node: what is filed, by whom, and what it still lacks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiohttp import web

from penstock.core.channel import ChannelParams, Lock, Release, Voucher
from penstock.core.errors import TransactionFailed
from penstock.core.identity import Key, keccak, to_hex
from penstock.core.ports import Filed, Filing, ProvenTicks
from penstock.core.units import Amount
from penstock.ledgers import forms
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.fees import Fees

from .world import (
    PERIOD,
    SUPPLIER,
    SUPPLIER_KEY,
    Sent,
    channel_of,
    consent_to,
    filing,
    gate_before,
    increase_time,
    ledger_of,
    node_that,
    preimage,
    until,
    voucher_key,
)

pytestmark = pytest.mark.asyncio
WATCHER = dev_key(38)
MOST_GAS = 2**24  # of a transaction (EIP-7825)


@dataclass
class Dispute:
    """A two-way channel of 50,000 token units whose opener closes as if nothing had been paid."""

    ledger: EvmLedger
    opener: Key
    params: ChannelParams

    @classmethod
    async def over(cls, ledger: EvmLedger, opener: Key) -> Dispute:
        params = channel_of(ledger, opener, two_way=True)
        await ledger.open(opener, params, Amount(50_000))
        await ledger.close(opener, params, None)
        return cls(ledger, opener, params)

    async def filed(self) -> Filed:
        return await self.ledger.filed(self.params, partner=True)

    async def answer(self, what: Filing, sequence: int) -> list[str]:
        consent = consent_to(self.params, what.voucher, SUPPLIER_KEY, sequence)
        return [one.what for one in await self.ledger.answer(WATCHER, self.params, True, what, sequence, consent)]


async def test_what_is_filed_is_read_with_the_state_of_the_channel(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(0))
        filed = await at.filed()
        assert (filed.channel.status, filed.present, filed.by_payee, filed.amount) == ("closing", False, False, 0)
        best = filing(at.opener, at.params, 4, 20_000, (3, 0))
        await ledger.file(SUPPLIER, at.params, best)
        filed = await at.filed()
        assert filed == Filed(
            await ledger.channel(at.params), True, True, Amount(20_300), Amount(1_700), 0, best.voucher.locks_root
        )
        assert not (await ledger.filed(at.params, partner=False)).present


async def test_a_watcher_answers_with_the_sleepers_consent_and_proves_its_ticks(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(1))
        proven = (3, 0, 10, *[1] * 13)  # fifteen proofs of seven words: one more than fits a transaction
        best = filing(at.opener, at.params, 4, 20_000, proven)
        assert await at.answer(best, 4) == ["answer", "prove", "prove"]
        filed = await at.filed()
        owed = 20_000 + 100 * sum(proven)
        assert (filed.present, filed.by_payee, filed.amount) == (True, False, owed)
        assert await ledger.prove(WATCHER, at.params, True, best) == []  # it has them all
        await increase_time(ledger, PERIOD)
        before = (await ledger.holdings(SUPPLIER.address)).balance
        await ledger.settle(WATCHER, at.params)
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + owed


async def test_the_later_answer_counts_and_none_once_the_payee_has_filed_itself(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(2))
        await at.answer(filing(at.opener, at.params, 1, 1_000), 1)
        await at.answer(filing(at.opener, at.params, 3, 3_000), 3)
        assert (await at.filed()).amount == 3_000
        with pytest.raises(TransactionFailed) as late:
            await at.answer(filing(at.opener, at.params, 2, 2_000), 2)
        assert late.value.reason == "channel: a later answer was taken"
        best = filing(at.opener, at.params, 9, 9_000)
        consent = consent_to(at.params, best.voucher, WATCHER, 9)
        with pytest.raises(TransactionFailed) as forged:
            await ledger.answer(WATCHER, at.params, True, best, 9, consent)
        assert forged.value.reason == "channel: no such answer signed"
        await ledger.file(SUPPLIER, at.params, filing(at.opener, at.params, 4, 4_000))
        assert (await at.filed()).by_payee
        with pytest.raises(TransactionFailed) as useless:
            await at.answer(filing(at.opener, at.params, 5, 5_000), 5)
        assert useless.value.reason == "channel: the payee has filed itself"


async def test_an_opener_who_sleeps_is_answered_for_too(devnet: Manifest) -> None:
    opener = dev_key(3)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener, two_way=True)
        await ledger.open(opener, params, Amount(1_000))
        await ledger.add(SUPPLIER, params, Amount(1_000))
        await ledger.close(SUPPLIER, params, None)
        voucher = Voucher.over(1, 250)
        best = Filing(voucher, SUPPLIER_KEY.sign(voucher.digest(params)))
        await ledger.answer(
            WATCHER, params, False, best, 1, consent_to(params, voucher, voucher_key(opener), sequence=1)
        )
        assert (await ledger.filed(params, partner=False)).amount == 250
        assert not (await ledger.filed(params, partner=True)).present


async def test_ticks_that_became_known_later_are_proven_and_the_others_left_out(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(4))
        await ledger.file(SUPPLIER, at.params, filing(at.opener, at.params, 1, 1_000, (2, 5, 0)))
        more = filing(at.opener, at.params, 1, 1_000, (6, 5, 1))  # the second has not moved
        [mined] = await ledger.prove(WATCHER, at.params, True, more)
        assert mined.what == "prove"
        assert (await at.filed()).amount == 1_000 + 100 * (6 + 5 + 1)
        with pytest.raises(TransactionFailed) as another:
            await ledger.prove(WATCHER, at.params, True, filing(at.opener, at.params, 1, 1_000, (7, 6)))
        assert another.value.reason == "channel: lock not in the voucher"


async def test_somebody_who_is_quicker_with_a_proof_spoils_none_of_the_others(devnet: Manifest) -> None:
    async with (
        ledger_of(devnet) as theirs,
        gate_before(devnet) as (gate, url),
        ledger_of(devnet, url=url, fees=Fees(patience=0.2)) as ledger,
    ):
        at = await Dispute.over(theirs, dev_key(10))
        await theirs.file(SUPPLIER, at.params, filing(at.opener, at.params, 1, 1_000, (0, 0, 0)))
        for ours, quicker, count in (((3, 5, 6), (4, 0, 0), 1), ((5, 6, 7), (5, 6, 7), 0)):
            gate.withhold = lambda raw: True
            gate.seen.clear()
            proving = asyncio.create_task(
                ledger.prove(SUPPLIER, at.params, True, filing(at.opener, at.params, 1, 1_000, ours))
            )
            await until(lambda: len(gate.seen) > 0, "nothing is sent")
            await theirs.prove(WATCHER, at.params, True, filing(at.opener, at.params, 1, 1_000, quicker))
            gate.withhold = lambda raw: False
            assert len(await proving) == count
        assert (await at.filed()).amount == 1_000 + 100 * (5 + 6 + 7)


async def test_ticks_of_a_lock_that_has_expired_keep_nothing_else_from_being_filed(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(5))
        now = await ledger.now()
        early = filing(at.opener, at.params, 1, 1_000, (3, 4), expiry=now + 50)
        locks = (early.locks[0], Lock(early.locks[1].root, 100, 10, now + 2 * PERIOD))
        voucher = Voucher.over(1, 1_000, locks)
        best = Filing(voucher, voucher_key(at.opener).sign(voucher.digest(at.params)), locks, early.proofs)
        await increase_time(ledger, 60)
        await ledger.file(SUPPLIER, at.params, best)
        assert (await at.filed()).amount == 1_400
        assert await ledger.prove(WATCHER, at.params, True, best) == []
        assert (await at.filed()).locked == 1_600


async def test_a_payee_is_held_to_its_release_by_the_payer_or_with_the_payers_consent(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        for opener, sender in ((dev_key(6), dev_key(6)), (dev_key(7), WATCHER)):
            at = await Dispute.over(ledger, opener)
            await ledger.file(SUPPLIER, at.params, filing(opener, at.params, 2, 1_000, (4,)))
            release = Release(3, 1_100)
            signature = SUPPLIER_KEY.sign(release.digest(at.params))
            consent = consent_to(at.params, release, voucher_key(opener))
            if sender is WATCHER:
                with pytest.raises(TransactionFailed) as alone:
                    await ledger.release(sender, at.params, True, release, signature)
                assert alone.value.reason == "channel: no such answer signed"
            await ledger.release(sender, at.params, True, release, signature, consent if sender is WATCHER else None)
            filed = await at.filed()
            assert (filed.amount, filed.locked, filed.by_payee) == (1_100, 0, False)


async def test_what_was_proven_before_the_challenge_was_extended_is_found(devnet: Manifest) -> None:
    opener = dev_key(11)
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, opener)
        first = filing(opener, at.params, 2, 1_000, (4,))
        await ledger.file(SUPPLIER, at.params, first)
        found = [ProvenTicks(first.locks[0].root, 4, first.proofs[0][1])]
        assert await ledger.proven(at.params) == found
        await increase_time(ledger, PERIOD - 60)
        release = Release(3, 1_000)
        await ledger.release(opener, at.params, True, release, SUPPLIER_KEY.sign(release.digest(at.params)))
        assert await ledger.proven(at.params) == found
        await increase_time(ledger, PERIOD - 60)
        later = filing(opener, at.params, 4, 1_000, (0, 2))  # late, with locks: one period more
        await ledger.file(SUPPLIER, at.params, later)
        found.append(ProvenTicks(later.locks[1].root, 2, later.proofs[1][1]))
        assert await ledger.proven(at.params) == found
        await increase_time(ledger, PERIOD)
        await ledger.settle(WATCHER, at.params)
        assert await ledger.proven(at.params) == found
        assert await ledger.proven(at.params, since=await ledger.now() - PERIOD - 10) == found[1:]


async def test_what_is_proven_again_under_a_later_filing_is_found_again(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(12))
        for nonce, counts in ((1, (4, 7)), (2, (3,))):
            for count in counts:
                await ledger.file(SUPPLIER, at.params, filing(at.opener, at.params, nonce, 1_000, (count,)))
        assert [ticks.count for ticks in await ledger.proven(at.params)] == [4, 7, 3]


async def test_a_node_that_makes_up_what_was_proven_is_not_believed(devnet: Manifest) -> None:
    lies: list[dict[str, Any]] = []

    async with gate_before(devnet) as (gate, _):

        async def lying(request: web.Request) -> web.Response:
            question = await request.json()
            if question["method"] == "eth_getLogs":
                return web.json_response({"jsonrpc": "2.0", "id": question["id"], "result": lies})
            return await gate.answer(request)

        async with node_that(lying) as url, ledger_of(devnet, url=url) as ledger:
            at = await Dispute.over(ledger, dev_key(13))
            best = filing(at.opener, at.params, 1, 1_000, (4, 1))
            await ledger.file(SUPPLIER, at.params, best)
            wanted = {"address": to_hex(at.params.domain.contract), "fromBlock": "0x0"}
            topic = to_hex(ledger._contract.topic("Proven"))
            good, other = await gate.ask("eth_getLogs", {**wanted, "topics": [topic, to_hex(at.params.id)]})
            _, channel, root = good["topics"]
            longer = {**good, "data": good["data"][:65] + "5" + good["data"][66:]}
            lies += [
                longer,
                {**good, "topics": [topic, channel]},
                {**good, "topics": [topic, "0x" + "11" * 32, root]},
                {**good, "topics": [topic, channel, other["topics"][2]]},
                {**good, "data": "0x" + "00" * 31 + "00" + root[2:]},  # no tick, and the root
                {**good, "data": good["data"][:80]},
                other,
            ]
            assert [ticks.count for ticks in await ledger.proven(at.params)] == [1]
            lies.append(good)
            assert [ticks.count for ticks in await ledger.proven(at.params)] == [1, 4]


async def test_an_answer_that_a_reorganisation_removed_is_seen_missing_and_can_be_given_again(
    devnet: Manifest,
) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(8))
        before = await ledger._node.ask("evm_snapshot")
        best = filing(at.opener, at.params, 1, 1_000, (2,))
        await at.answer(best, 1)
        assert (await at.filed()).amount == 1_200
        await ledger._node.ask("evm_revert", before)
        assert not (await at.filed()).present
        await at.answer(best, 1)
        assert (await at.filed()).amount == 1_200


async def test_an_ended_channel_is_final_once_it_is_deep_enough(devnet: Manifest) -> None:
    opener = dev_key(9)
    async with ledger_of(devnet, confirmations=2) as ledger:
        params = channel_of(ledger, opener)
        await ledger.open(opener, params, Amount(500))
        assert not await ledger.final(params)
        await ledger.close(SUPPLIER, params, filing(opener, params, 1, 200))
        assert (await ledger.channel(params)).status == "settled"
        assert not await ledger.final(params)
        for _ in range(2):
            await ledger._node.ask("evm_mine")
        assert await ledger.final(params)
        absent = msgspec.structs.replace(params, counter=7)
        assert not await ledger.final(absent)


HOPS = 500


def hops(at: Dispute, expiry: int, count: int, every: int = 1) -> Filing:
    """A hub's voucher over hundreds of locks; of one in `every` it knows the first `count` ticks."""
    seeds = [keccak(b"hop %d" % number) for number in range(HOPS)]
    locks = tuple(Lock(preimage(seed, 10), 7, 10, expiry) for seed in seeds)
    voucher = Voucher.over(1, 1_000, locks)
    signature = voucher_key(at.opener).sign(voucher.digest(at.params))
    proofs = [(count, preimage(seed, 10 - count)) if at % every == 0 else (0, b"") for at, seed in enumerate(seeds)]
    return Filing(voucher, signature, locks, tuple(proofs))


async def test_hundreds_of_open_locks_are_filed_and_all_proven(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(14))
        expiry = await ledger.now() + 2 * PERIOD
        filed, known = hops(at, expiry, 1), hops(at, expiry, 3, every=10)
        mined = await ledger.file(SUPPLIER, at.params, filed)
        assert (await at.filed()).amount == 1_000 + 7 * HOPS
        assert max(one.gas for one in mined) < MOST_GAS
        assert sum(one.gas for one in mined) < 30_000 * HOPS
        assert await ledger.prove(SUPPLIER, at.params, True, filed) == []  # nothing is new
        await increase_time(ledger, PERIOD)
        await ledger.settle(WATCHER, at.params)
        await ledger.prove(WATCHER, at.params, True, known)  # what the hub learned later
        earned = 7 * HOPS + 14 * HOPS // 10
        after = await at.filed()
        assert (after.amount, after.locked) == (1_000 + earned, 70 * HOPS - earned)
        assert len(await ledger.proven(at.params)) == HOPS + HOPS // 10


async def test_who_has_ether_for_one_proof_at_a_time_proves_one_after_the_other(devnet: Manifest) -> None:
    refused: list[bytes] = []
    prove = Interface(load("Channel")["abi"]).encode("prove", (0,) * 5, True, [])[:4]

    async with gate_before(devnet) as (gate, _):

        async def poor(request: web.Request) -> web.Response:
            question = await request.json()
            if question["method"] == "eth_sendRawTransaction":
                data = Sent(bytes.fromhex(question["params"][0][2:])).data
                if data[:4] == prove and data not in refused and len(refused) < 2:
                    refused.append(data)
                    error = {"code": -32000, "message": "insufficient funds for gas * price + value"}
                    return web.json_response({"jsonrpc": "2.0", "id": question["id"], "error": error})
            return await gate.answer(request)

        async with node_that(poor) as url, ledger_of(devnet, url=url) as ledger:
            at = await Dispute.over(ledger, dev_key(18))
            best = filing(at.opener, at.params, 1, 1_000, (1,) * 40)
            assert [one.what for one in await ledger.file(SUPPLIER, at.params, best)] == ["file", *["prove"] * 3]
            assert len(refused) == 2
            assert (await at.filed()).amount == 1_000 + 100 * 40


async def test_what_no_transaction_could_walk_at_once_is_proven_in_two(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "PROOF_TICKS", 8)
    async with ledger_of(devnet) as ledger:
        for opener, answered in ((dev_key(15), True), (dev_key(16), False)):
            at = await Dispute.over(ledger, opener)
            best = filing(opener, at.params, 1, 1_000, (10, 4, 5, 9))
            if answered:
                assert await at.answer(best, 1) == ["answer", *["prove"] * 6]
            else:
                assert [one.what for one in await ledger.file(SUPPLIER, at.params, best)] == ["file", *["prove"] * 5]
            assert (await at.filed()).amount == 1_000 + 100 * (10 + 4 + 5 + 9)
            assert sorted(ticks.count for ticks in await ledger.proven(at.params))[-2:] == [9, 10]
            assert await ledger.prove(WATCHER, at.params, True, best) == []


async def test_what_has_expired_among_hundreds_is_left_out(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        at = await Dispute.over(ledger, dev_key(17))
        soon = await ledger.now() + 100
        known = filing(at.opener, at.params, 1, 1_000, (1,) * 40)
        locks = tuple(Lock(lock.root, 100, 10, soon if n % 7 == 3 else 0) for n, lock in enumerate(known.locks))
        voucher = Voucher.over(1, 1_000, locks)
        signature = voucher_key(at.opener).sign(voucher.digest(at.params))
        empty = Filing(voucher, signature, locks, ((0, b""),) * 40)
        await ledger.file(SUPPLIER, at.params, empty)
        await increase_time(ledger, 100)
        await ledger.prove(WATCHER, at.params, True, Filing(voucher, signature, locks, known.proofs))
        assert (await at.filed()).amount == 1_000 + 100 * sum(not lock.expiry for lock in locks)
