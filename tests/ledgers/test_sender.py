"""Transactions that do not get into a block, or do not stay there: a real node behind a gate."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from penstock.core.channel import APART
from penstock.core.errors import LedgerError, LedgerUnreachable, OutOfFunds, OutOfGas
from penstock.core.identity import Key, keccak, to_hex
from penstock.core.units import Amount
from penstock.ledgers import fees, sender
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.fees import GWEI, Fees

from .world import PERIOD, Gate, Sent, channel_of, filing, gate_before, ledger_of, node_that, pay_ether, until

QUICK = Fees(patience=0.2)
pytestmark = pytest.mark.asyncio


async def snapshot(ledger: EvmLedger) -> str:
    return str(await ledger._node.ask("evm_snapshot"))


async def test_what_no_block_takes_is_replaced_by_the_same_for_an_eighth_more(devnet: Manifest) -> None:
    opener = dev_key(0)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=QUICK) as ledger:
        gate.withhold = lambda raw: len(gate.seen) < 3
        [mined] = await ledger.open(opener, channel_of(ledger, opener), Amount(0))
        versions = [Sent(raw) for raw in gate.seen]
        assert len(versions) == 3
        assert mined.hash == keccak(gate.seen[-1])
        assert len({version.nonce for version in versions}) == 1
        assert len({version.data for version in versions}) == 1
        for one, next_ in pairwise(versions):
            assert next_.most * 8 >= one.most * 9
            assert next_.tip * 8 >= one.tip * 9
        assert (await ledger.channel(channel_of(ledger, opener))).status == "open"


async def test_an_earlier_version_that_is_mined_after_all_counts(devnet: Manifest) -> None:
    opener = dev_key(1)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=QUICK) as ledger:
        gate.withhold = lambda raw: True
        opening = asyncio.create_task(ledger.open(opener, channel_of(ledger, opener), Amount(0)))
        await until(lambda: len(gate.seen) > 1, "the fee is not raised")
        await ledger._node.ask("evm_mine")
        await gate.ask("eth_sendRawTransaction", "0x" + gate.seen[0].hex())
        [mined] = await opening
        assert mined.hash == keccak(gate.seen[0])


async def test_a_version_that_the_node_denies_but_mines_is_not_sent_twice(devnet: Manifest) -> None:
    opener = dev_key(12)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=QUICK) as ledger:
        gate.withhold = lambda raw: len(gate.seen) == 1
        gate.deny = lambda raw: True
        [mined] = await ledger.open(opener, channel_of(ledger, opener), Amount(0))
        assert mined.hash == keccak(gate.seen[1])
        assert {Sent(raw).nonce for raw in gate.seen} == {0}


async def test_a_fee_spike_is_met_by_the_next_version_but_not_beyond_the_ceiling(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fees, "QUOTE_AGE", 0.0)
    opener = dev_key(2)
    limits = Fees(ceiling=200 * GWEI, patience=0.2)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=limits) as ledger:
        gate.withhold = lambda raw: len(gate.seen) < 4
        opening = asyncio.create_task(ledger.open(opener, channel_of(ledger, opener), Amount(0)))

        await until(lambda: len(gate.seen) > 0, "nothing is sent")
        gate.base_fee = 35 * GWEI
        await until(lambda: len(gate.seen) > 2, "the fee is not raised")
        gate.base_fee = 1_000 * GWEI
        await opening
        offers = [Sent(raw).most for raw in gate.seen]
        assert offers[0] < 35 * GWEI
        assert 70 * GWEI <= max(offers[1:3]) < 200 * GWEI
        assert offers[-1] == 200 * GWEI


async def test_at_the_ceiling_it_is_sent_again_unchanged_until_it_is_given_up(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DEADLINE", 1.5)
    opener = dev_key(3)
    limits = Fees(ceiling=3 * GWEI, patience=0.1)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=limits) as ledger:
        gate.withhold = lambda raw: True
        with pytest.raises(LedgerUnreachable, match="is not mined after") as given_up:
            await ledger.open(opener, channel_of(ledger, opener), Amount(0))
        assert "look it up" in given_up.value.advice
        assert max(Sent(raw).most for raw in gate.seen) <= 3 * GWEI
        gate.withhold = lambda raw: False
        [mined] = await ledger.open(opener, channel_of(ledger, opener), Amount(0))  # its nonce is free again
        assert mined.block


async def test_what_a_reorganisation_takes_out_of_the_chain_is_sent_again(devnet: Manifest) -> None:
    opener, other = dev_key(4), dev_key(5)
    async with ledger_of(devnet, confirmations=3) as ledger:
        first, second = channel_of(ledger, opener, 0), channel_of(ledger, opener, 1)
        before = await snapshot(ledger)
        await ledger.open(opener, first, Amount(0))
        await ledger.open(opener, second, Amount(0))
        assert await ledger._node.ask("evm_revert", before) is True
        await ledger._node.ask("evm_mine")
        assert (await ledger._state(first))[0].status == "absent"

        async def both_again() -> bool:
            states = [await ledger._state(params) for params in (first, second)]
            return [state.status for state, _ in states] == ["open", "open"]

        await until(both_again, "they are not sent again")
        for _ in range(3):
            await ledger._node.ask("evm_mine")
        await until(lambda: not ledger._sender._following, "they are followed for ever")
        assert not ledger._sender._in_flight[opener.address]
        await ledger.open(other, channel_of(ledger, other), Amount(0))
    assert not ledger._sender._following


async def test_what_an_ended_program_left_in_the_pool_does_not_block_for_ever(devnet: Manifest) -> None:
    opener = dev_key(6)
    async with gate_before(devnet) as (gate, url):
        await gate.ask("evm_setAutomine", False)
        try:
            async with ledger_of(devnet) as ended:
                left = asyncio.create_task(ended.open(opener, channel_of(ended, opener), Amount(0)))

                async def pending() -> bool:
                    address = to_hex(opener.address)
                    return await ended._node.quantity("eth_getTransactionCount", address, "pending") == 1

                await until(pending, "nothing is sent")
                left.cancel()
                await asyncio.gather(left, return_exceptions=True)
            async with ledger_of(devnet, url=url, fees=QUICK) as ledger:
                waiting = asyncio.create_task(ledger.withdraw(opener, Amount(0)))
                await until(lambda: any(Sent(raw).nonce == 0 for raw in gate.seen), "the queue stays blocked")
                await until(lambda: _mined(ledger, waiting), "the transaction is not mined")
                [empty] = [sent for sent in map(Sent, gate.seen) if sent.nonce == 0][-1:]
                assert (empty.to, empty.data) == (bytes(opener.address), b"")
                assert (await ledger.channel(channel_of(ledger, opener))).status == "absent"
        finally:
            await gate.ask("evm_setAutomine", True)


async def _mined(ledger: EvmLedger, waiting: asyncio.Task[Any]) -> bool:
    await ledger._node.ask("evm_mine")
    return waiting.done() and waiting.exception() is None


async def test_an_account_that_cannot_pay_learns_what_it_has_and_needs(devnet: Manifest) -> None:
    poor = Key(keccak(b"somebody without ether"))
    async with ledger_of(devnet) as ledger:
        with pytest.raises(OutOfGas) as raised:
            await ledger.open(poor, channel_of(ledger, poor), Amount(0))
        error = raised.value
        assert isinstance(error, LedgerError)
        assert isinstance(error, OutOfFunds)
        assert (error.account, error.has, error.by) == (poor.address, 0, 0)
        assert error.needs > 50_000 * GWEI
        assert to_hex(poor.address) in str(error)
        assert "ether" in error.advice


async def test_one_that_cannot_pay_for_an_answer_learns_by_when_it_must(devnet: Manifest) -> None:
    opener, poor = dev_key(7), Key(keccak(b"a supplier without ether"))
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener, two_way=True)
        params = type(params)(
            params.domain, opener.address, poor.address, params.opener_key, params.partner_key, PERIOD, True, APART
        )
        await ledger.open(opener, params, Amount(1_000))
        await ledger.close(opener, params, None)
        with pytest.raises(OutOfGas, match="the challenge ends in") as raised:
            await ledger.file(poor, params, filing(opener, params, 1, 500))
        assert raised.value.by == (await ledger.channel(params)).closes_at


async def test_a_raise_that_the_account_cannot_pay_leaves_the_first_version_standing(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fees, "QUOTE_AGE", 0.0)
    opener = dev_key(8)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=QUICK) as ledger:
        gate.withhold = lambda raw: len(gate.seen) == 1
        opening = asyncio.create_task(ledger.open(opener, channel_of(ledger, opener), Amount(0)))
        await until(lambda: len(gate.seen) > 0, "nothing is sent")
        gate.base_fee = 10**19  # more than anybody has, if the ceiling let it
        ledger._sender._limits = Fees(ceiling=10**20, patience=0.2)
        await until(lambda: len(gate.seen) > 1, "the fee is not raised")
        await gate.ask("eth_sendRawTransaction", "0x" + gate.seen[0].hex())
        [mined] = await opening
        assert mined.hash == keccak(gate.seen[0])


async def test_who_cannot_pay_for_room_above_the_base_fee_offers_all_it_has(devnet: Manifest) -> None:
    poor = Key(keccak(b"somebody with a little ether"))
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url) as ledger:
        params = channel_of(ledger, poor)
        gate.base_fee = 10 * GWEI
        with pytest.raises(OutOfGas) as nothing:
            await ledger.open(poor, params, Amount(0))
        gas, price = nothing.value.needs // await ledger.gas_price(), 15 * GWEI
        await pay_ether(ledger, dev_key(11), poor.address, gas * price)
        await ledger.open(poor, params, Amount(0))
        sent = Sent(gate.seen[-1])
        assert sent.most == price < await ledger.gas_price()


async def test_the_price_of_gas_is_what_is_offered(devnet: Manifest) -> None:
    opener = dev_key(9)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url) as ledger:
        price = await ledger.gas_price()
        await ledger.open(opener, channel_of(ledger, opener), Amount(0))
        assert Sent(gate.seen[0]).most == price


async def test_a_node_that_forgets_a_transaction_gets_it_again(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "REBROADCAST", 0.2)
    opener, asked = dev_key(10), 0
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url) as ledger:

        def first_time(raw: bytes) -> bool:
            nonlocal asked
            asked += 1
            return asked == 1

        gate.withhold = first_time
        [mined] = await ledger.open(opener, channel_of(ledger, opener), Amount(0))
        assert gate.seen == [gate.seen[0]]
        assert mined.hash == keccak(gate.seen[0])


class LateReceipts(Gate):
    """Two nodes behind one URL: the one that counts nonces is ahead of the one that has the receipts."""

    def __init__(self, behind: str) -> None:
        super().__init__(behind)
        self.asked: list[str] = []
        self.late = False

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if self.late and asked["method"] == "eth_getTransactionReceipt":
            self.asked.append(asked["params"][0])
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": None})
        return await super().answer(request)


async def test_receipts_that_come_late_do_not_let_the_same_money_be_sent_twice(devnet: Manifest) -> None:
    opener = dev_key(30)
    gate = LateReceipts(devnet.url)
    try:
        async with node_that(gate.answer) as url, ledger_of(devnet, url=url) as ledger:
            params = channel_of(ledger, opener)
            await ledger.deposit(opener, Amount(10_000))
            await ledger.open(opener, params, Amount(1_000))
            gate.late, sent = True, len(gate.seen)
            adding = asyncio.create_task(ledger.add(opener, params, Amount(500)))
            await until(lambda: len(gate.asked) > 7, "its receipt is not asked for")
            gate.late = False
            await adding
            assert len(gate.seen) == sent + 1
            assert (await ledger.channel(params)).opener_deposit == 1_500
    finally:
        await gate.close()


async def test_a_receipt_that_never_comes_is_doubt_and_not_a_nonce_that_was_taken(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DEADLINE", 1.5)
    opener = dev_key(31)
    gate = LateReceipts(devnet.url)
    try:
        async with node_that(gate.answer) as url, ledger_of(devnet, url=url) as ledger:
            gate.late = True
            with pytest.raises(LedgerUnreachable) as raised:
                await ledger.withdraw(opener, Amount(0))
            assert raised.value.advice == "it may still be: look it up before you send it again"
            assert len(gate.seen) == 1
    finally:
        await gate.close()


async def test_a_nonce_that_a_block_holds_something_else_under_is_left_to_it(devnet: Manifest) -> None:
    opener = dev_key(32)
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url) as ledger:
        gate.withhold = lambda raw: len(gate.seen) == 1
        adding = asyncio.create_task(ledger.deposit(opener, Amount(0)))
        await until(lambda: len(gate.seen) > 0, "nothing is sent")
        async with ledger_of(devnet) as other:
            await pay_ether(other, opener, opener.address, 1)
        await adding
        assert [Sent(raw).nonce for raw in gate.seen] == [0, 1]


async def test_one_that_was_mined_but_whose_answer_was_lost_is_not_sent_again(devnet: Manifest) -> None:
    opener = dev_key(33)

    class Lossy(Gate):
        lost = False

        async def answer(self, request: web.Request) -> web.Response:
            answered = await super().answer(request)
            if (await request.json())["method"] == "eth_sendRawTransaction" and not self.lost:
                self.lost = True
                return web.Response(status=502)
            return answered

    gate = Lossy(devnet.url)
    try:
        async with node_that(gate.answer) as url, ledger_of(devnet, url=url) as ledger:
            [mined] = await ledger.withdraw(opener, Amount(0))
            assert gate.lost
            assert [keccak(raw) for raw in gate.seen] == [mined.hash]
    finally:
        await gate.close()
