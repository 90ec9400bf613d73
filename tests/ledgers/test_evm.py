"""The EVM ledger against a real devnet in another process, and against nodes that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from penstock.core.channel import Domain
from penstock.core.errors import LedgerUnreachable, OutOfFunds, TransactionFailed, UsageError, WrongLedger
from penstock.core.identity import Address, Key, keccak, parse_address, to_hex
from penstock.core.ports import ChannelState, Ledger, TokenFacts
from penstock.core.units import Amount
from penstock.ledgers.artifacts import load, runtime
from penstock.ledgers.devnet.genesis import ACCOUNT_EUROS
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger, Opening

from .world import (
    PERIOD,
    SUPPLIER,
    channel_of,
    deploy_code,
    filing,
    increase_time,
    ledger_of,
    node_that,
    pay_ether,
    signed_close,
)


@pytest.mark.asyncio
async def test_connecting_reads_the_domain_and_the_token(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        port: Ledger = ledger  # it has every method of the port
        assert port.domain == Domain(
            devnet.chain_id,
            parse_address(devnet.contracts["CryptoEuroChannel"]),
            parse_address(devnet.contracts["CryptoEuro"]),
        )
        assert await ledger.token() == TokenFacts("cEUR", 6)
        assert abs(await ledger.now() - 1_700_000_000) < 10**9
        holdings = await ledger.holdings(dev_key(30).address)
        assert (holdings.wallet, holdings.balance, holdings.ether) == (ACCOUNT_EUROS, 0, 1_000 * 10**18)


@pytest.mark.asyncio
async def test_a_counterfeit_contract_is_told_from_a_genuine_one(devnet: Manifest) -> None:
    maker = dev_key(31)
    async with ledger_of(devnet) as ledger:
        assert await ledger.genuine()
        chain_id, token, code = ledger.domain.chain_id, ledger.domain.token, runtime(load("Channel"))

        def original(address: Address) -> bytes:
            domain = Domain(chain_id, address, token)
            return code + token.rjust(32, b"\0") + domain.separator + domain.seed

        def changed(address: Address) -> bytes:
            return original(address).replace(b"not a party", b"not a Party", 1)

        def without_seed(address: Address) -> bytes:
            return original(address)[:-32] + bytes(32)

        for make, genuine in ((original, True), (changed, False), (without_seed, False)):
            address = await deploy_code(ledger, maker, make)
            other = await EvmLedger.connect(devnet.url, address, devnet.chain_id)  # it answers like one, all the same
            try:
                assert await other.genuine() is genuine, make.__name__
            finally:
                await other.disconnect()


@pytest.mark.asyncio
async def test_a_channel_is_opened_by_one_signature_added_to_and_closed_together(devnet: Manifest) -> None:
    opener = dev_key(0)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener)
        assert (await ledger.channel(params)).status == "absent"
        opened = await ledger.open(opener, params, Amount(5_000))
        assert [mined.what for mined in opened] == ["open with authorization"]
        assert opened[0].gas > 50_000
        state = await ledger.channel(params)
        assert (state.status, state.opener_deposit, state.partner_deposit, state.closes_at) == ("open", 5_000, 0, 0)
        await ledger.add(opener, params, Amount(1_000))
        assert (await ledger.channel(params)).opener_deposit == 6_000
        before = (await ledger.holdings(SUPPLIER.address)).balance
        [closed] = await ledger.close_together(SUPPLIER, [signed_close(opener, params, 2_000, 4_000)])
        assert closed.hash
        assert (await ledger.channel(params)).status == "settled"
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + 4_000
        holdings = await ledger.holdings(opener.address)
        assert (holdings.wallet, holdings.balance, holdings.tokens) == (
            ACCOUNT_EUROS - 6_000,
            2_000,
            ACCOUNT_EUROS - 4_000,
        )
        assert await ledger.next_counter(opener.address) == 1


@pytest.mark.asyncio
async def test_money_in_the_contract_is_used_before_the_wallet_and_both_together_where_needed(devnet: Manifest) -> None:
    opener = dev_key(1)
    async with ledger_of(devnet) as ledger:
        first, second, third = (channel_of(ledger, opener, counter) for counter in range(3))
        await ledger.open(opener, first, Amount(1_000))
        await ledger.close_together(opener, [signed_close(opener, first, 1_000, 0)])
        [mined] = await ledger.open(opener, second, Amount(600))
        assert mined.what == "open with keys"
        assert (await ledger.holdings(opener.address)).balance == 400
        everything = Amount(ACCOUNT_EUROS - 600)
        names = [mined.what for mined in await ledger.open(opener, third, everything)]
        assert names == ["withdraw", "open with authorization"]
        assert (await ledger.holdings(opener.address)).tokens == 0


@pytest.mark.asyncio
async def test_an_allowance_that_is_there_is_used_and_a_permit_where_authorizations_are_unknown(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = dev_key(28)
    async with ledger_of(devnet) as ledger:
        await ledger.approve(opener, Amount(500))
        [mined] = await ledger.open(opener, channel_of(ledger, opener, counter=1), Amount(500))
        assert mined.what == "open from token with keys"

        async def unknown(*_: object) -> bytes:
            raise WrongLedger("the token takes no authorization")

        monkeypatch.setattr(ledger._token, "authorization", unknown)
        [mined] = await ledger.open(opener, channel_of(ledger, opener, counter=2), Amount(500))
        assert mined.what == "open with permit"


@pytest.mark.asyncio
async def test_a_token_without_permits_is_approved_first(devnet: Manifest) -> None:
    opener = dev_key(2)
    async with ledger_of(devnet, "WrappedEtherChannel") as ledger:
        await pay_ether(ledger, opener, ledger.domain.token, 5_000, keccak(b"deposit()")[:4])
        assert await ledger.token() == TokenFacts("WETH", 18)
        params = channel_of(ledger, opener, two_way=True)
        assert [mined.what for mined in await ledger.open(opener, params, Amount(3_000))] == [
            "approve",
            "open from token with keys",
        ]
        assert [mined.what for mined in await ledger.add(opener, params, Amount(2_000))] == [
            "approve",
            "add from token",
        ]
        assert (await ledger.channel(params)).opener_deposit == 5_000


@pytest.mark.asyncio
async def test_a_stale_close_is_answered_and_settled_after_the_period(devnet: Manifest) -> None:
    opener = dev_key(3)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener, two_way=True)
        await ledger.open(opener, params, Amount(50_000))
        await ledger.close(opener, params, None)  # as if nothing had been paid
        state = await ledger.channel(params)
        assert state.status == "closing"
        assert PERIOD - 5 <= state.closes_at - await ledger.now() <= PERIOD
        with pytest.raises(TransactionFailed) as early:
            await ledger.settle(SUPPLIER, params)
        assert early.value.reason == "channel: challenge not over"
        proven = (3, 0, 10, *[1] * 13)  # fifteen proofs of seven words: one more than fits a transaction
        before = (await ledger.holdings(SUPPLIER.address)).balance
        filed = await ledger.file(SUPPLIER, params, filing(opener, params, 4, 20_000, proven))
        assert [mined.what for mined in filed] == ["file", "prove"]
        await increase_time(ledger, PERIOD)
        await ledger.settle(opener, params)
        assert (await ledger.channel(params)).status == "settled"
        owed = 20_000 + 100 * sum(proven)
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + owed
        assert (await ledger.holdings(opener.address)).balance == 50_000 - owed


@pytest.mark.asyncio
async def test_the_payee_of_a_one_way_channel_is_paid_at_once_but_waits_where_a_lock_may_still_be_proven(
    devnet: Manifest,
) -> None:
    opener = dev_key(4)
    async with ledger_of(devnet) as ledger:
        quick, slow = channel_of(ledger, opener, 0), channel_of(ledger, opener, 1)
        before = (await ledger.holdings(SUPPLIER.address)).balance
        await ledger.open(opener, quick, Amount(10_000))
        await ledger.close(SUPPLIER, quick, filing(opener, quick, 1, 3_000, (7,)))
        assert (await ledger.channel(quick)).status == "settled"
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + 3_700
        await ledger.open(opener, slow, Amount(10_000))
        hop = filing(opener, slow, 1, 3_000, (7,), expiry=await ledger.now() + 10 * PERIOD)
        await ledger.close(SUPPLIER, slow, hop)
        assert (await ledger.channel(slow)).status == "closing"


@pytest.mark.asyncio
async def test_many_payers_open_in_few_blocks_and_one_of_them_failing_harms_none(
    devnet: Manifest, pytestconfig: pytest.Config
) -> None:
    openers = [dev_key(index) for index in range(5, 25)]
    async with ledger_of(devnet) as ledger:
        before = await ledger._node.quantity("eth_blockNumber")
        openings = [Opening(key, channel_of(ledger, key), Amount(100 + index)) for index, key in enumerate(openers)]
        openings[7] = openings[7]._replace(deposit=Amount(ACCOUNT_EUROS + 1))
        results = await ledger.open_many(openings)
        assert isinstance(results[7], OutOfFunds)
        assert all(isinstance(result, list) for index, result in enumerate(results) if index != 7)
        if pytestconfig.getoption("--chain") == "devnet":  # anvil gives each a block of its own at once
            assert await ledger._node.quantity("eth_blockNumber") - before <= 10
        states = await asyncio.gather(*(ledger.channel(opening.params) for opening in openings))
        assert [state.opener_deposit for state in states] == [0 if i == 7 else 100 + i for i in range(20)]

        rows = [signed_close(key, channel_of(ledger, key), 60 + index, 40) for index, key in enumerate(openers)]
        rows[3] = signed_close(openers[3], channel_of(ledger, openers[3]), 1, 1)  # not what is in the channel
        closed = await ledger.close_many(SUPPLIER, rows)
        assert closed.skipped == {
            rows[3].params.id: "channel: balances are not the pot",
            rows[7].params.id: "channel: no such channel",
        }
        assert len(closed.mined) == 1
        states = await asyncio.gather(*(ledger.channel(opening.params) for opening in openings))
        assert [i for i, state in enumerate(states) if state.status != "settled"] == [3, 7]


@pytest.mark.asyncio
async def test_many_transactions_of_one_key_at_once_all_get_their_own_nonce(devnet: Manifest) -> None:
    opener = dev_key(25)
    async with ledger_of(devnet) as ledger, ledger_of(devnet) as another_program:
        first = channel_of(ledger, opener, 0)
        await ledger.open(opener, first, Amount(1_000))
        await ledger.close_together(opener, [signed_close(opener, first, 1_000, 0)])
        sends = [(ledger if index % 2 else another_program).withdraw(opener, Amount(1 + index)) for index in range(12)]
        mined = [one for many in await asyncio.gather(*sends) for one in many]
        assert len({one.hash for one in mined}) == 12
        assert (await ledger.holdings(opener.address)).balance == 1_000 - sum(range(1, 13))


@pytest.mark.asyncio
async def test_what_the_contract_refuses_is_told_in_its_own_words_and_costs_nothing(devnet: Manifest) -> None:
    opener = dev_key(26)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener)
        await ledger.open(opener, params, Amount(1_000))
        ether = (await ledger.holdings(opener.address)).ether
        with pytest.raises(TransactionFailed) as again:
            await ledger.open(opener, params, Amount(0))
        assert again.value.reason.startswith("channel: ")
        with pytest.raises(TransactionFailed) as late:
            await ledger.settle(SUPPLIER, params)
        assert late.value.reason.startswith("channel: ")
        with pytest.raises(TransactionFailed) as lone:
            await ledger.close_together(opener, [signed_close(opener, params, 5, 5)])
        assert lone.value.reason == "channel: balances are not the pot"
        assert (await ledger.holdings(opener.address)).ether == ether


@pytest.mark.asyncio
async def test_a_transaction_that_reverts_in_its_block_is_not_reported_as_mined(devnet: Manifest) -> None:
    opener = dev_key(27)
    async with ledger_of(devnet) as ledger:
        data = ledger._contract.encode("withdraw", 5)
        with pytest.raises(TransactionFailed) as reverted:
            await ledger._sender.send(opener, ledger.domain.contract, data, "withdraw", gas=100_000)
        assert reverted.value.reason.startswith("channel: ")
        with pytest.raises(TransactionFailed, match="out of gas"):
            await ledger._sender.send(opener, ledger.domain.contract, data, "withdraw", gas=22_500)


@pytest.mark.asyncio
async def test_an_empty_wallet_is_out_of_funds_with_advice(devnet: Manifest) -> None:
    poor = Key(keccak(b"somebody without anything"))
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, poor)
        with pytest.raises(OutOfFunds) as tokens:
            await ledger.open(poor, params, Amount(1))
        assert "send it tokens" in tokens.value.advice
        with pytest.raises(OutOfFunds) as gas:
            await ledger.open(poor, params, Amount(0))
        assert to_hex(poor.address) in str(gas.value)
        assert "ether" in gas.value.advice


@pytest.mark.asyncio
async def test_a_channel_of_another_ledger_and_anothers_channel_are_refused(devnet: Manifest) -> None:
    opener = dev_key(28)
    async with ledger_of(devnet) as ledger, ledger_of(devnet, "WrappedEtherChannel") as other:
        elsewhere = channel_of(other, opener)
        calls: list[Callable[[], Any]] = [
            lambda: ledger.channel(elsewhere),
            lambda: ledger.open(opener, elsewhere, Amount(1)),
            lambda: ledger.add(opener, elsewhere, Amount(1)),
            lambda: ledger.close(opener, elsewhere, None),
            lambda: ledger.settle(opener, elsewhere),
            lambda: ledger.close_together(opener, [signed_close(opener, elsewhere, 1, 0)]),
        ]
        for call in calls:
            with pytest.raises(WrongLedger):
                await call()
        with pytest.raises(UsageError, match="not the opener"):
            await ledger.open(dev_key(29), channel_of(ledger, opener), Amount(1))


@pytest.mark.asyncio
async def test_a_wrong_chain_an_empty_address_and_another_contract_are_no_ledger(devnet: Manifest) -> None:
    contract = parse_address(devnet.contracts["CryptoEuroChannel"])
    with pytest.raises(WrongLedger, match="chain 31337, not 1"):
        await EvmLedger.connect(devnet.url, contract, 1)
    with pytest.raises(WrongLedger, match="no contract"):
        await EvmLedger.connect(devnet.url, Address(b"\x11" * 20))
    with pytest.raises(WrongLedger) as another:
        await EvmLedger.connect(devnet.url, parse_address(devnet.contracts["CryptoEuro"]))
    assert another.value.advice


@pytest.mark.asyncio
async def test_a_node_that_is_gone_or_changed_is_told_apart(start_devnet: Callable[..., Any]) -> None:
    first = start_devnet(accounts=1)
    async with ledger_of(first.manifest) as ledger:
        first.kill()
        with pytest.raises(LedgerUnreachable) as gone:
            await ledger.holdings(dev_key(0).address)
        assert gone.value.advice
        with pytest.raises(LedgerUnreachable):
            await EvmLedger.connect(first.manifest.url, ledger.domain.contract)

        async def chain_id(request: web.Request) -> web.Response:
            """A node on the same port that has no contracts."""
            asked = await request.json()
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x"})

        async with node_that(chain_id, first.port):
            with pytest.raises(WrongLedger, match="no contract answers"):
                await ledger.channel(channel_of(ledger, dev_key(0)))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>It works!</html>"),
        (200, b""),
        (200, b"\xff\xfe\x00"),
        (200, b"[]"),
        (200, b"5"),
        (200, b'"result"'),
        (200, b"{}"),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": null}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": 31337}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": "0xzz"}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": {"a": []}}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "error": "no"}'),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": "0x1", "error": {"code": 1, "message": "both"}}'),
        (200, b"[" * 100_000),
        (404, b"not here"),
        (500, b"broken"),
    ],
)
async def test_a_node_that_answers_rubbish_is_unreachable_with_advice(status: int, body: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with node_that(answer) as url:
        with pytest.raises(LedgerUnreachable) as raised:
            await EvmLedger.connect(url, Address(b"\x11" * 20))
        assert raised.value.advice
        assert "\n" not in raised.value.line()


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["", "8545", "ftp://127.0.0.1", "ws://127.0.0.1:1", "http://", "http://[::1"])
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises((UsageError, LedgerUnreachable)) as raised:
        await EvmLedger.connect(url, Address(b"\x11" * 20))
    assert raised.value.advice


@pytest.mark.asyncio
async def test_an_opening_and_a_deposit_count_once_they_are_deep_enough(devnet: Manifest) -> None:
    """Rule 10: a lock lasts until its own expiry, and counts where it was agreed to, acknowledged and final."""
    opener = dev_key(31)
    async with ledger_of(devnet, confirmations=2) as ledger, ledger_of(devnet) as hasty:
        params = channel_of(ledger, opener)
        await ledger.open(opener, params, Amount(500))
        assert (await hasty.channel(params)).status == "open"
        assert (await ledger.channel(params)).status == "absent"
        await ledger._node.ask("evm_mine")
        await ledger._node.ask("evm_mine")
        assert await ledger.channel(params) == ChannelState("open", Amount(500))
        await ledger.add(opener, params, Amount(70))
        assert (await hasty.channel(params)).opener_deposit == 570
        assert (await ledger.channel(params)).opener_deposit == 500
        await ledger.close(opener, params, None)
        assert (await ledger.channel(params)).status == "closing"
