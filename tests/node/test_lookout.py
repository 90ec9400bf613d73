"""A supplier that streams looks at its channel on the ledger now and then, and answers a close behind its back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import pytest

from penstock.core.channel import Voucher
from penstock.core.messages import Reason
from penstock.core.ports import Filing
from penstock.core.session import Patience
from penstock.core.units import Amount, Duration
from penstock.ledgers.evm import EvmLedger
from penstock.node import lookout
from penstock.node.clock import now
from penstock.node.lookout import answer, look_out

from .world import Street, Told, until

OpenStreet = Callable[..., AbstractAsyncContextManager[Street]]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LONGEST", 0.1)
    monkeypatch.setattr(lookout, "SHORTEST", 0.1)


@pytest.mark.asyncio
async def test_a_close_behind_the_suppliers_back_ends_the_session_and_is_answered(open_street: OpenStreet) -> None:
    async with open_street(patience=Patience(Duration(1_000), Duration(1_000))) as it:
        thief, _propose, payer = await it.robs()
        params = payer._params
        await it.ledger.close(it.last_key, params, None)
        await until(lambda: it.told.of("channel closing"))
        thief.leave()
        await until(lambda: it.supplier.shell is None, "the session goes on")
        assert it.sessions[-1].reason is Reason.CHANNEL_CLOSING
        await until(lambda: it.told.of("filed"), "nothing was filed")


@pytest.mark.asyncio
async def test_an_answer_brings_what_the_voucher_is_worth(open_street: OpenStreet) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key, period=60)
        voucher = Voucher.over(1, 5_000)
        filing = Filing(voucher, key.sign(voucher.digest(params)))
        told = Told()
        await answer(it.ledger, it.key, params, filing, told)
        assert told.of("filed") == [], "nobody had begun to close"
        await it.ledger.close(key, params, None)
        await answer(it.ledger, it.key, params, filing, told)
        assert len(told.of("filed")) == 1
        before = (await it.ledger.holdings(it.key.address)).balance
        await it.ledger._node.ask("evm_increaseTime", 61)
        await it.ledger._node.ask("evm_mine")
        await it.ledger.settle(key, params)
        assert (await it.ledger.holdings(it.key.address)).balance == Amount(before + 5_000)


@pytest.mark.asyncio
async def test_a_ledger_that_is_not_seen_for_half_a_challenge_period_ends_the_session(open_street: OpenStreet) -> None:
    async with open_street() as it:
        params = await it.channel(it.fresh_key(), period=60)
        port = int(it.manifest.url.rpartition(":")[2])
        ends: list[asyncio.StreamWriter] = []
        relay = await asyncio.start_server(lambda *end: _relay(port, ends, *end), "127.0.0.1", 0)
        ours = relay.sockets[0].getsockname()[1]
        ledger = await EvmLedger.connect(f"http://127.0.0.1:{ours}", it.ledger.domain.contract)
        stops: list[Reason] = []
        told, skew = Told(), 0
        looking = asyncio.ensure_future(look_out(ledger, params, lambda: now() + skew, stops.append, told))  # type: ignore[arg-type,return-value]  # an instant
        relay.close()
        for end in ends:
            end.close()
        await until(lambda: told.of("ledger not seen"))
        assert stops == []
        skew = 31_000
        await until(lambda: stops, "it leans on an old view")
        assert stops == [Reason.LEDGER_UNSEEN]
        await looking
        await ledger.disconnect()


async def _relay(
    port: int, ends: list[asyncio.StreamWriter], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bytes to the devnet and back, until either side ends."""
    ends.append(writer)
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
