"""Escrows over JSON-RPC against a real devnet in another process: every call, and what is no escrow contract."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from penstock.core.errors import (
    BadSignature,
    LedgerError,
    LedgerUnreachable,
    OutOfFunds,
    OutOfGas,
    OutOfRange,
    TransactionFailed,
    UsageError,
    WrongLedger,
)
from penstock.core.escrow import EscrowDomain, EscrowParams, SignedReading, deposit_digest
from penstock.core.identity import Address, Key, keccak, parse_address, to_hex
from penstock.core.ports import EscrowAuthorization, EscrowLedger, EscrowState, TokenFacts
from penstock.core.tariff import Tariff
from penstock.core.units import Amount
from penstock.ledgers import logs
from penstock.ledgers.artifacts import load, runtime
from penstock.ledgers.devnet.genesis import ACCOUNT_EUROS
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.escrow import EvmEscrows, params_words, signed_words, tariff_words
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.fees import Fees

from .escrows import (
    DEPOSIT,
    LIFE,
    NOON,
    PAYEE,
    TARIFF,
    WINDOW,
    escrow_of,
    escrows_of,
    payer_key,
    reading,
    signed_end,
)
from .world import FOREVER, deploy_code, gate_before, increase_time, node_that, pay_ether, until

pytestmark = pytest.mark.asyncio
SENDER = dev_key(38)
# The code of a contract that calls the address in the first word of its calldata with the rest, and fails as that does.
PASSES_ON = bytes.fromhex("602036038060205f375f5f915f5f5f355af115601757005b5f5ffd")


async def refused(call: Any) -> str:
    """The contract's reason for refusing a call."""
    with pytest.raises(TransactionFailed) as raised:
        await call
    return raised.value.reason


# ---- connecting


async def test_connecting_reads_the_domain_and_the_token(devnet: Manifest) -> None:
    async with escrows_of(devnet) as escrows:
        port: EscrowLedger = escrows  # it has every method of the port
        assert port.domain == EscrowDomain(
            devnet.chain_id,
            parse_address(devnet.contracts["CryptoEuroEscrow"]),
            parse_address(devnet.contracts["CryptoEuro"]),
        )
        assert await port.token() == TokenFacts("cEUR", 6)
        holdings = await port.holdings(dev_key(30).address)
        assert (holdings.wallet, holdings.balance, holdings.ether) == (ACCOUNT_EUROS, 0, 1_000 * 10**18)


async def test_what_is_no_escrow_contract_is_no_ledger(devnet: Manifest) -> None:
    for name in ("CryptoEuro", "WrappedEther", "CryptoEuroChannel"):
        with pytest.raises(WrongLedger) as another:
            await EvmEscrows.connect(devnet.url, parse_address(devnet.contracts[name]))
        assert another.value.advice
    escrow = parse_address(devnet.contracts["CryptoEuroEscrow"])
    with pytest.raises(WrongLedger, match="another contract or version"):
        await EvmLedger.connect(devnet.url, escrow)  # nor does an escrow contract keep channels
    with pytest.raises(WrongLedger, match="no contract"):
        await EvmEscrows.connect(devnet.url, Address(b"\x11" * 20))
    with pytest.raises(WrongLedger, match="chain 31337, not 1"):
        await EvmEscrows.connect(devnet.url, escrow, 1)
    with pytest.raises(LedgerUnreachable):
        await EvmEscrows.connect("http://127.0.0.1:1", escrow)
    with pytest.raises(UsageError):
        await EvmEscrows.connect("ws://127.0.0.1:1", escrow)


async def test_a_counterfeit_contract_is_told_from_a_genuine_one(devnet: Manifest) -> None:
    async with escrows_of(devnet) as escrows:
        assert await escrows.genuine()
        chain_id, token, code = escrows.domain.chain_id, escrows.domain.token, runtime(load("Escrow"))

        def original(address: Address) -> bytes:
            domain = EscrowDomain(chain_id, address, token)
            return code + token.rjust(32, b"\0") + domain.separator + domain.seed

        def changed(address: Address) -> bytes:
            return original(address).replace(b"not the payee", b"not the Payee", 1)

        for make, genuine in ((original, True), (changed, False)):
            address = await deploy_code(escrows, dev_key(31), make)
            other = await EvmEscrows.connect(devnet.url, address, devnet.chain_id)
            try:
                assert await other.genuine() is genuine, make.__name__
            finally:
                await other.disconnect()


# ---- funding


async def test_one_signature_deposits_and_the_last_reading_pays_both_at_once(devnet: Manifest) -> None:
    payer = dev_key(0)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer, escrows.fresh_counter(), window=0)
        assert await escrows.escrow(params) == EscrowState("absent")
        [funded] = await escrows.fund(payer, params)
        assert funded.what == "deposit with authorization"
        assert await escrows.escrow(params) == EscrowState("open")
        before = (await escrows.holdings(PAYEE.address)).balance
        await escrows.release(PAYEE, params, TARIFF, reading(params, 1, 5_000))
        assert await escrows.escrow(params) == EscrowState("open", Amount(2_000), Amount(2_000))
        final = reading(params, 2, 9_000, last=True, at=NOON, turns=(6_000,))
        [released] = await escrows.release(SENDER, params, TARIFF, final)  # anybody may file the last one
        assert released.what == "release"
        due = 6_000 * 4 // 10 + 3_000 * 10 // 10
        assert await escrows.escrow(params) == EscrowState("ended", Amount(due), Amount(due))
        assert await escrows.final(params)
        assert (await escrows.holdings(PAYEE.address)).balance == before + due
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT - due
        [home] = await escrows.withdraw(payer, Amount(DEPOSIT - due))
        assert home.what == "withdraw"
        assert (await escrows.holdings(payer.address)).wallet == ACCOUNT_EUROS - due
        assert await refused(escrows.fund(payer, params)) == "escrow: escrow was used"


async def test_money_in_the_contract_is_used_before_the_wallet_and_both_together_where_needed(
    devnet: Manifest,
) -> None:
    payer = dev_key(1)
    async with escrows_of(devnet) as escrows:
        first, second = [await escrow_of(escrows, payer, counter) for counter in range(2)]
        everything = await escrow_of(escrows, payer, 2, deposit=ACCOUNT_EUROS - 6_000)
        too_much = await escrow_of(escrows, payer, 3, deposit=ACCOUNT_EUROS)
        await escrows.fund(payer, first)
        await escrows.end(payer, [signed_end(payer, first, 0)])
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT
        [mined] = await escrows.fund(payer, second)
        assert mined.what == "deposit from balance"
        await escrows.end(payer, [signed_end(payer, second, 6_000)])
        with pytest.raises(OutOfFunds) as short:
            await escrows.fund(payer, too_much)
        assert short.value.advice
        names = [mined.what for mined in await escrows.fund(payer, everything)]
        assert names == ["withdraw", "deposit with authorization"]
        assert (await escrows.holdings(payer.address)).tokens == 0


async def test_an_allowance_that_is_there_is_used_and_a_permit_where_authorizations_are_unknown(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer = dev_key(2)
    async with escrows_of(devnet) as escrows:
        await escrows.approve(payer, DEPOSIT)
        [mined] = await escrows.fund(payer, await escrow_of(escrows, payer, 1))
        assert mined.what == "deposit"

        async def unknown(*_: object) -> bytes:
            raise WrongLedger("the token takes no authorization")

        monkeypatch.setattr(escrows._token, "authorization", unknown)
        [mined] = await escrows.fund(payer, await escrow_of(escrows, payer, 2))
        assert mined.what == "deposit with permit"


async def test_a_token_without_permits_is_approved_first(devnet: Manifest) -> None:
    payer = dev_key(3)
    async with escrows_of(devnet, "WrappedEtherEscrow") as escrows:
        await pay_ether(escrows, payer, escrows.domain.token, DEPOSIT, keccak(b"deposit()")[:4])
        assert await escrows.token() == TokenFacts("WETH", 18)
        params = await escrow_of(escrows, payer)
        with pytest.raises(WrongLedger):
            await escrows.authorize(payer, params, Amount(0), FOREVER)
        assert [mined.what for mined in await escrows.fund(payer, params)] == ["approve", "deposit"]
        assert (await escrows.escrow(params)).status == "open"


async def test_an_authorization_that_travelled_as_json_deposits_and_pays_its_sender(devnet: Manifest) -> None:
    payer = dev_key(4)
    async with escrows_of(devnet) as escrows:
        params, other = [await escrow_of(escrows, payer, counter) for counter in range(2)]
        ether = (await escrows.holdings(payer.address)).ether
        signed = await escrows.authorize(payer, params, Amount(30), FOREVER)
        signed = msgspec.json.decode(msgspec.json.encode(signed), type=EscrowAuthorization)
        for escrow, authorization in [
            (other, signed),
            (params, msgspec.structs.replace(signed, fee=Amount(31))),
            (params, msgspec.structs.replace(signed, valid_before=FOREVER + 1)),
        ]:
            assert await refused(escrows.fund_authorized(SENDER, escrow, authorization)) == "token: bad signature"
        before = (await escrows.holdings(SENDER.address)).balance
        [mined] = await escrows.fund_authorized(SENDER, params, signed)
        assert mined.what == "deposit with authorization"
        assert (await escrows.escrow(params)).status == "open"
        assert (await escrows.holdings(SENDER.address)).balance == before + 30
        holdings = await escrows.holdings(payer.address)
        assert (holdings.wallet, holdings.ether) == (ACCOUNT_EUROS - DEPOSIT - 30, ether)
        assert await refused(escrows.fund_authorized(SENDER, params, signed)) == "token: authorization used"
        with pytest.raises(OutOfFunds):
            await escrows.authorize(payer, params, Amount(ACCOUNT_EUROS), FOREVER)


async def test_a_signed_deposit_is_paid_from_the_balance_and_pays_its_sender(devnet: Manifest) -> None:
    payer = dev_key(5)
    async with escrows_of(devnet) as escrows:
        first = await escrow_of(escrows, payer)
        params = await escrow_of(escrows, payer, 1, deposit=7_000)
        await escrows.fund(payer, first)
        await escrows.end(SENDER, [signed_end(payer, first, 0)])
        before = (await escrows.holdings(SENDER.address)).balance
        signature = payer.sign(deposit_digest(params, 20, FOREVER))
        assert await refused(escrows.fund_signed(SENDER, params, Amount(21), FOREVER, signature)) == (
            "escrow: account has not signed"
        )
        [mined] = await escrows.fund_signed(SENDER, params, Amount(20), FOREVER, signature)
        assert mined.what == "deposit signed"
        assert (await escrows.escrow(params)).status == "open"
        assert (await escrows.holdings(SENDER.address)).balance == before + 20
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT - 7_020


async def test_deposits_that_the_contract_would_refuse_are_not_sent(devnet: Manifest) -> None:
    payer = dev_key(6)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        ether = (await escrows.holdings(payer.address)).ether
        with pytest.raises(UsageError, match="not the payer"):
            await escrows.fund(SENDER, params)
        with pytest.raises(UsageError, match="not the payer"):
            await escrows.authorize(SENDER, params, Amount(0), FOREVER)
        past = msgspec.structs.replace(params, deadline=await escrows.now() - 1)
        assert await refused(escrows.fund(payer, past)) == "escrow: deadline has passed"
        poor = Key(keccak(b"somebody without anything"))
        with pytest.raises(OutOfFunds):
            await escrows.fund(poor, await escrow_of(escrows, poor))
        assert (await escrows.holdings(payer.address)).ether == ether


# ---- releasing


async def test_a_claim_waits_its_window_and_what_matured_is_paid_before_the_next_one(devnet: Manifest) -> None:
    payer = dev_key(7)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        await escrows.fund(payer, params)
        first, second = reading(params, 1, 5_000), reading(params, 2, 10_000)
        assert await refused(escrows.release(payer, params, TARIFF, first)) == "escrow: not the payee"
        await escrows.release(PAYEE, params, TARIFF, first)
        state = await escrows.escrow(params)
        assert (state.status, state.claimed, state.drawn) == ("open", 2_000, 0)
        assert 0 <= await escrows.now() + WINDOW - state.matures_at <= 30
        assert await refused(escrows.settle(SENDER, params)) == "escrow: nothing to pay yet"
        await increase_time(escrows, WINDOW)
        await escrows.release(PAYEE, params, TARIFF, second)
        state = await escrows.escrow(params)
        assert (state.claimed, state.drawn) == (4_000, 2_000)
        for stale in (first, second):
            assert await refused(escrows.release(PAYEE, params, TARIFF, stale)) == "escrow: nothing more to claim"
        await increase_time(escrows, WINDOW)
        [mined] = await escrows.settle(SENDER, params)
        assert mined.what == "settle"
        assert await escrows.escrow(params) == EscrowState("open", Amount(4_000), Amount(4_000))


async def test_after_the_last_reading_the_escrow_ends_with_its_window(devnet: Manifest) -> None:
    payer = dev_key(8)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        await escrows.fund(payer, params)
        before = (await escrows.holdings(PAYEE.address)).balance
        await escrows.release(PAYEE, params, TARIFF, reading(params, 3, 5_000, last=True))
        state = await escrows.escrow(params)
        assert (state.status, state.claimed, state.drawn) == ("ending", 2_000, 0)
        late = reading(params, 4, 6_000, last=True)
        assert await refused(escrows.release(PAYEE, params, TARIFF, late)) == "escrow: no more readings"
        await increase_time(escrows, WINDOW)
        await escrows.settle(SENDER, params)
        assert await escrows.escrow(params) == EscrowState("ended", Amount(2_000), Amount(2_000))
        assert (await escrows.holdings(PAYEE.address)).balance == before + 2_000
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT - 2_000
        assert await refused(escrows.settle(SENDER, params)) == "escrow: escrow has ended"


async def test_two_readings_that_contradict_each_other_are_shown_within_the_window(devnet: Manifest) -> None:
    payer = dev_key(9)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        await escrows.fund(payer, params)
        honest, forged = reading(params, 1, 5_000), reading(params, 1, 15_000)
        following = reading(params, 2, 20_000)
        assert await refused(escrows.contest(payer, params, TARIFF, honest, forged)) == "escrow: no claim waits"
        await escrows.release(PAYEE, params, TARIFF, forged)
        assert await refused(escrows.contest(payer, params, TARIFF, forged, following)) == "escrow: no contradiction"
        [mined] = await escrows.contest(payer, params, TARIFF, forged, honest)
        assert mined.what == "contest"
        state = await escrows.escrow(params)
        assert (state.status, state.claimed, state.drawn, state.contested) == ("ending", 2_000, 0, True)
        assert await refused(escrows.release(PAYEE, params, TARIFF, following)) == "escrow: no more readings"
        await increase_time(escrows, WINDOW)
        await escrows.settle(payer, params)
        assert await escrows.escrow(params) == EscrowState("ended", Amount(2_000), Amount(2_000), 0, True)
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT - 2_000


async def test_readings_are_found_as_they_were_filed_even_through_another_contract(devnet: Manifest) -> None:
    payer = dev_key(32)
    async with escrows_of(devnet) as escrows:
        payee = await deploy_code(escrows, dev_key(31), lambda _: PASSES_ON)
        params, other = [await escrow_of(escrows, payer, counter, payee=payee) for counter in range(2)]
        await escrows.fund(payer, params)
        await escrows.fund(payer, other)
        assert await escrows.filed(params) == []
        first = reading(params, 1, 4_000)
        second = reading(params, 2, 9_000, at=NOON, turns=(6_000,))
        third = reading(params, 3, 10_000, last=True, at=NOON, turns=(6_000,))

        async def pass_on(escrow: EscrowParams, signed: SignedReading) -> None:
            words = (params_words(escrow), tariff_words(TARIFF), *signed_words(signed))
            data = escrows.domain.contract.rjust(32, b"\0") + escrows._contract.encode("release", *words)
            await escrows._sender.send(SENDER, payee, data, "release")

        await pass_on(params, first)
        assert await escrows.filed(params) == [first]
        await increase_time(escrows, WINDOW)
        await pass_on(params, second)
        await pass_on(other, reading(other, 1, 5_000))
        assert await escrows.filed(params) == [second]  # what has matured is contested no more
        await escrows.release(SENDER, params, TARIFF, third)
        assert await escrows.filed(params) == [second, third]


async def test_a_node_that_searches_few_blocks_at_once_is_asked_in_parts(
    devnet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, asked = dev_key(33), []

    async with gate_before(devnet) as (gate, _):

        async def narrow(request: web.Request) -> web.Response:
            question = await request.json()
            if question["method"] == "eth_getLogs":
                first, last = (int(question["params"][0][name], 16) for name in ("fromBlock", "toBlock"))
                asked.append(last - first + 1)
                if asked[-1] > 3:
                    error = {"code": -32005, "message": "block range is too large"}
                    return web.json_response({"jsonrpc": "2.0", "id": question["id"], "error": error})
            return await gate.answer(request)

        async with node_that(narrow) as url, escrows_of(devnet, url=url) as escrows:
            params = await escrow_of(escrows, payer)
            await escrows.fund(payer, params)
            signed = [reading(params, sequence, 1_000 * sequence) for sequence in range(1, 4)]
            for one in signed:
                await escrows.release(PAYEE, params, TARIFF, one)
                for _ in range(4):
                    await escrows._node.ask("evm_mine")
            with pytest.raises(LedgerError, match="block range is too large"):
                await escrows.filed(params)
            asked.clear()
            monkeypatch.setattr(logs, "LOG_BLOCKS", 3)
            assert await escrows.filed(params) == signed
            assert max(asked) > 3
            assert sum(width for width in asked if width <= 3) == asked[0]


async def test_past_the_deadline_the_payer_gets_the_rest_back(devnet: Manifest) -> None:
    payer = dev_key(10)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        await escrows.fund(payer, params)
        assert await refused(escrows.settle(payer, params)) == "escrow: nothing to pay yet"
        await increase_time(escrows, LIFE)
        late = reading(params, 1, 5_000)
        assert await refused(escrows.release(PAYEE, params, TARIFF, late)) == "escrow: deadline has passed"
        await escrows.settle(payer, params)
        assert await escrows.escrow(params) == EscrowState("ended")
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT


async def test_what_the_meter_or_the_tariff_do_not_bear_out_is_refused_and_costs_nothing(devnet: Manifest) -> None:
    payer = dev_key(11)
    async with escrows_of(devnet) as escrows:
        params, other = [await escrow_of(escrows, payer, counter) for counter in range(2)]
        await escrows.fund(payer, params)
        ether = (await escrows.holdings(PAYEE.address)).ether
        good = reading(params, 1, 5_000)
        raised = msgspec.structs.replace(good, reading=msgspec.structs.replace(good.reading, total=5_001))
        for bad in (raised, reading(other, 1, 5_000), reading(params, 1, 5_000, meter=payer_key(payer))):
            assert await refused(escrows.release(PAYEE, params, TARIFF, bad)) == "escrow: meter has not signed"
        unturned = reading(params, 1, 5_000, at=NOON)
        assert await refused(escrows.release(PAYEE, params, TARIFF, unturned)) == "escrow: turns do not fit the tariff"
        dearer = Tariff(TARIFF.per, TARIFF.steps[1:])
        with pytest.raises(UsageError, match="tariff"):
            await escrows.release(PAYEE, params, dearer, good)
        with pytest.raises(UsageError, match="tariff"):
            await escrows.contest(payer, params, dearer, good, good)
        assert (await escrows.holdings(PAYEE.address)).ether == ether
        assert await escrows.escrow(params) == EscrowState("open")


async def test_the_bill_never_exceeds_the_deposit(devnet: Manifest) -> None:
    payer = dev_key(12)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer, window=0)
        await escrows.fund(payer, params)
        await escrows.release(PAYEE, params, TARIFF, reading(params, 1, 2**62, last=True))
        assert await escrows.escrow(params) == EscrowState("ended", Amount(DEPOSIT), Amount(DEPOSIT))


# ---- ending together


async def test_both_end_it_at_once_and_a_lone_bad_row_is_told_in_the_contracts_own_words(devnet: Manifest) -> None:
    payer = dev_key(13)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        await escrows.fund(payer, params)
        await escrows.release(PAYEE, params, TARIFF, reading(params, 1, 5_000))
        forged = msgspec.structs.replace(signed_end(payer, params, 3_000), amount=Amount(9_000))
        assert await refused(escrows.end(PAYEE, [forged])) == "escrow: payer has not signed"
        before = (await escrows.holdings(PAYEE.address)).balance
        [mined] = await escrows.end(SENDER, [signed_end(payer, params, 3_000)])
        assert mined.what == "end"
        assert await escrows.escrow(params) == EscrowState("ended", Amount(3_000), Amount(3_000))
        assert (await escrows.holdings(PAYEE.address)).balance == before + 3_000
        assert (await escrows.holdings(payer.address)).balance == DEPOSIT - 3_000
        assert await refused(escrows.end(PAYEE, [signed_end(payer, params, 3_000)])) == "escrow: escrow has ended"


async def test_many_end_in_one_transaction_and_bad_rows_are_skipped_with_a_reason(devnet: Manifest) -> None:
    payers = [dev_key(index) for index in range(14, 19)]
    async with escrows_of(devnet) as escrows:
        made = {payer: await escrow_of(escrows, payer) for payer in payers}
        await asyncio.gather(*(escrows.fund(payer, params) for payer, params in made.items() if payer != payers[3]))
        rows = [signed_end(payer, params, 1_000 + at) for at, (payer, params) in enumerate(made.items())]
        rows[1] = msgspec.structs.replace(rows[1], amount=Amount(5_000))  # not what was signed
        before = (await escrows.holdings(PAYEE.address)).balance
        batch = await escrows.end_many(PAYEE, rows)
        assert [mined.what for mined in batch.mined] == ["end of 5 escrows"]
        assert batch.skipped == {
            rows[1].params.id: "escrow: payer has not signed",
            rows[3].params.id: "escrow: no such escrow",
        }
        states = [await escrows.escrow(params) for params in made.values()]
        assert [state.status for state in states] == ["ended", "open", "ended", "absent", "ended"]
        assert (await escrows.holdings(PAYEE.address)).balance == before + 1_000 + 1_002 + 1_004
        again = await escrows.end_many(PAYEE, rows)
        assert len(again.skipped) == 5
        assert await escrows.end(PAYEE, []) == []


async def test_parties_that_make_their_rows_dear_after_the_estimate_let_nothing_fail(devnet: Manifest) -> None:
    payers = [dev_key(index) for index in range(19, 27)]
    payees = [Key(keccak(b"payee %d" % index)) for index in range(8)]
    async with gate_before(devnet) as (gate, url), escrows_of(devnet, url=url, fees=Fees(patience=0.2)) as escrows:
        async with escrows_of(devnet) as theirs:
            rows = []
            for payer, payee in zip(payers, payees, strict=True):
                await pay_ether(theirs, SENDER, payee.address, 10**17)
                first, second = [await escrow_of(theirs, payer, n, payee=payee.address) for n in range(2)]
                await theirs.fund(payer, first)
                await theirs.end(payer, [signed_end(payer, first, 4_000)])  # both have something in the contract
                await theirs.approve(payer, DEPOSIT)
                await theirs._send(payer, "deposit", params_words(second))
                rows.append(signed_end(payer, second, 3_000))
            gate.withhold = lambda raw: True
            sending = asyncio.create_task(escrows.end_many(SENDER, rows))
            await until(lambda: len(gate.seen) > 0, "nothing is sent")
            for payer, payee in zip(payers, payees, strict=True):
                await theirs.withdraw(payer, Amount(DEPOSIT - 4_000))
                await theirs.withdraw(payee, Amount(4_000))
        gate.withhold = lambda raw: False
        batch = await sending
        assert batch.skipped == {}
        assert {(await escrows.escrow(row.params)).status for row in rows} == {"ended"}


# ---- other ledgers, depth, gas


async def test_an_escrow_of_another_ledger_is_refused_and_nothing_is_sent(devnet: Manifest) -> None:
    payer = dev_key(27)
    async with escrows_of(devnet) as escrows, escrows_of(devnet, "WrappedEtherEscrow") as other:
        ours, elsewhere = await escrow_of(escrows, payer), await escrow_of(other, payer)
        signed = reading(elsewhere, 1, 5_000)
        authorization = EscrowAuthorization(Amount(0), 0, FOREVER, bytes(65))
        ether = (await escrows.holdings(payer.address)).ether
        calls: list[Callable[[], Any]] = [
            lambda: escrows.escrow(elsewhere),
            lambda: escrows.final(elsewhere),
            lambda: escrows.fund(payer, elsewhere),
            lambda: escrows.fund_signed(payer, elsewhere, Amount(0), FOREVER, bytes(65)),
            lambda: escrows.authorize(payer, elsewhere, Amount(0), FOREVER),
            lambda: escrows.fund_authorized(payer, elsewhere, authorization),
            lambda: escrows.release(payer, elsewhere, TARIFF, signed),
            lambda: escrows.contest(payer, elsewhere, TARIFF, signed, signed),
            lambda: escrows.settle(payer, elsewhere),
            lambda: escrows.end(payer, [signed_end(payer, ours, 1), signed_end(payer, elsewhere, 1)]),
        ]
        for call in calls:
            with pytest.raises(WrongLedger) as raised:
                await call()
            assert raised.value.advice
        assert (await escrows.holdings(payer.address)).ether == ether


async def test_malformed_numbers_and_signatures_are_typed_errors_and_nothing_is_sent(devnet: Manifest) -> None:
    payer = dev_key(28)
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer)
        good, end = reading(params, 1, 5_000), signed_end(payer, params, 1)
        authorization = await escrows.authorize(payer, params, Amount(0), FOREVER)
        ether = (await escrows.holdings(payer.address)).ether
        change = msgspec.structs.replace
        calls: list[Callable[[], Any]] = []
        for made in (b"", bytes(64), bytes(65), b"\xff" * 65, bytes(66)):
            calls += [
                lambda made=made: escrows.fund_authorized(payer, params, change(authorization, signature=made)),
                lambda made=made: escrows.release(payer, params, TARIFF, change(good, signature=made)),
                lambda made=made: escrows.contest(payer, params, TARIFF, good, change(good, signature=made)),
                lambda made=made: escrows.end(payer, [change(end, payer_signature=made)]),
                lambda made=made: escrows.end(payer, [end, change(end, payee_signature=made)]),
            ]
        for number in (-1, 2**96):
            calls += [
                lambda number=number: escrows.fund(payer, change(params, deposit=number)),
                lambda number=number: escrows.fund_signed(payer, params, Amount(number), FOREVER, bytes(65)),
                lambda number=number: escrows.fund_signed(payer, params, Amount(0), number, bytes(65)),
                lambda number=number: escrows.authorize(payer, params, Amount(number), FOREVER),
                lambda number=number: escrows.fund_authorized(payer, params, change(authorization, fee=number)),
                lambda number=number: escrows.fund_authorized(
                    payer, params, change(authorization, valid_before=number)
                ),
                lambda number=number: escrows.end(payer, [change(end, amount=number)]),
            ]
        for call in calls:
            with pytest.raises((BadSignature, OutOfRange, TransactionFailed)) as raised:
                await call()
            assert "\n" not in raised.value.line()
        assert (await escrows.holdings(payer.address)).ether == ether


async def test_a_deposit_counts_and_an_end_is_final_once_they_are_deep_enough(devnet: Manifest) -> None:
    payer = dev_key(28)
    async with escrows_of(devnet, confirmations=2) as escrows, escrows_of(devnet) as hasty:
        params = await escrow_of(escrows, payer)
        await escrows.fund(payer, params)
        assert (await hasty.escrow(params)).status == "open"
        assert (await escrows.escrow(params)).status == "absent"
        await escrows._node.ask("evm_mine")
        await escrows._node.ask("evm_mine")
        assert await escrows.escrow(params) == EscrowState("open")
        await escrows.end(payer, [signed_end(payer, params, 1)])
        assert (await escrows.escrow(params)).status == "ended"
        assert (await hasty.final(params), await escrows.final(params)) == (True, False)
        await escrows._node.ask("evm_mine")
        await escrows._node.ask("evm_mine")
        assert await escrows.final(params)


async def test_who_cannot_pay_for_gas_hears_by_when_it_must(devnet: Manifest) -> None:
    payer, poor = dev_key(29), Key(keccak(b"a payee without ether"))
    async with escrows_of(devnet) as escrows:
        params = await escrow_of(escrows, payer, payee=poor.address)
        await escrows.fund(payer, params)
        partial, final = reading(params, 1, 5_000), reading(params, 1, 6_000, last=True)
        with pytest.raises(OutOfGas, match="no readings are taken in") as release:
            await escrows.release(poor, params, TARIFF, partial)
        assert (release.value.account, release.value.by) == (poor.address, params.deadline)
        await escrows.release(SENDER, params, TARIFF, final)
        matures_at = (await escrows.escrow(params)).matures_at
        with pytest.raises(OutOfGas, match="the claim matures in") as contest:
            await escrows.contest(poor, params, TARIFF, partial, final)
        assert contest.value.by == matures_at
        with pytest.raises(OutOfGas) as end:
            await escrows.end(poor, [signed_end(payer, params, 5)])
        assert (end.value.by, to_hex(poor.address) in str(end.value)) == (0, True)
