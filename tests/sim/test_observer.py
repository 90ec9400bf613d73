from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.channel import ChannelParams
from penstock.core.errors import LedgerUnreachable
from penstock.core.escrow import tariff_hash
from penstock.core.identity import parse_address
from penstock.core.tariff import Tariff
from penstock.core.units import Amount
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.jsonrpc import Node
from penstock.sim.charges import read_charges
from penstock.sim.compare import typical_gas
from penstock.sim.deduction import PER, deduce
from penstock.sim.observer import Observer, Sight
from penstock.sim.scenes import Ground

DEPOSIT = Amount(1_234_567)
PAYER, PAYEE = dev_key(1), dev_key(0)
HASH = bytes(range(1, 33))


def sight(function: str = "settle", said: dict[str, Any] | None = None, **changes: Any) -> Sight:
    made = Sight("0x1", 7, 1_000, "0xaa", "Escrow", function, 50_000, 60_000, 1, bytes(4), said or {}, ())
    return made._replace(**changes)


def test_an_observer_reads_what_a_channels_opening_says(tmp_path: Path) -> None:
    sights = asyncio.run(_opened(tmp_path))
    assert [one.function for one in sights] == ["open_with_authorization", "close"]
    opened = sights[0]
    names = {name for name, _ in opened.logged}
    assert names == {"Opened"}
    assert opened.said["params.terms.period"] == 3_600
    assert opened.said["sums.deposit"] == DEPOSIT
    found = deduce(sights)
    payer, payee = ("0x" + key.address.hex() for key in (PAYER, PAYEE))
    assert found.facts["payer"].values == (payer,)
    assert found.facts["payee"].values == (payee,)
    assert found.facts["deposit"].values == (DEPOSIT,)
    assert found.pairs == ((payer, payee),)
    assert found.times == tuple(one.at for one in sights)
    assert {"paid", "price", "energy", "meter reading", "ticks proven"} <= set(found.unknown())


async def _opened(directory: Path) -> list[Sight]:
    """A channel that is opened, and that its payer begins to close, on a real chain."""
    async with Ground("stream-channel", read_charges()[0], directory / "ground", lambda *_: None) as ground:
        ledger = await EvmLedger.connect(ground.url, parse_address(ground.contract))
        first = await ground.observer.height() + 1
        try:
            params = ChannelParams(
                ledger.domain, PAYER.address, PAYEE.address, PAYER.address, PAYEE.address, 3_600, False, 0
            )
            await ledger.open(PAYER, params, DEPOSIT)
            await ledger.close(PAYER, params, None)
        finally:
            await ledger.disconnect()
        with pytest.raises(LedgerUnreachable, match="no block"):
            await ground.observer.look(0, 10**6)
        return await ground.observer.look(first)


def test_a_node_that_is_not_there_is_said() -> None:
    async def look() -> None:
        node = Node("http://127.0.0.1:9")
        try:
            await Observer(node, {}).look(0)
        finally:
            await node.close()

    with pytest.raises(LedgerUnreachable):
        asyncio.run(look())


def test_a_price_that_people_set_is_found_by_its_hash() -> None:
    said = {"params.tariff": "0x" + tariff_hash(Tariff.flat(123_000, PER)).hex()}
    logged = (("Settled", {"word.drawn": 246_000}),)
    found = deduce([sight("deposit", said), sight("end", logged=logged)])
    assert found.facts["price"].values == (123_000,)
    assert found.facts["paid"].values == (246_000,)
    assert found.facts["energy"].values == (2_000,)
    assert "after trying 124 prices" in found.facts["price"].read_in[0]


def test_a_price_that_nobody_guesses_stays_unknown() -> None:
    said = {"params.tariff": "0x" + tariff_hash(Tariff.flat(123_456, PER)).hex()}
    found = deduce([sight("deposit", said)])
    assert {"price", "energy"} <= set(found.unknown())


def test_a_reading_says_the_energy_whatever_was_paid() -> None:
    said = {"reading.total": 4_711, "reading.at": 99_000, "tariff.steps[0].amount": 500_000}
    logged = (("Released", {"word.drawn": 1}),)
    found = deduce([sight("release", said, logged=logged)])
    assert found.facts["energy"].values == (4_711,)
    assert found.facts["time of a reading"].values == (99_000,)


def test_nothing_is_concluded_from_nothing() -> None:
    found = deduce([])
    assert found.unknown() == list(found.facts)
    assert (found.pairs, found.times) == ((), ())


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_zero_bytes_by_accident_do_not_show_in_gas(zeros: int) -> None:
    """A signature with such a byte costs 12 gas less, and its transaction counts as any other."""
    calldata = bytes(4) + HASH[: 32 - 2 * zeros] + b"\0\x07" * zeros
    assert typical_gas(sight(calldata=calldata, gas=50_000 - 12 * zeros)) == 50_000


def test_zeros_that_fill_a_word_up_count_as_they_are() -> None:
    address, sum_ = bytes(12) + HASH[:20], bytes(28) + HASH[:4]
    packed = HASH[:8] + bytes(8) + HASH[:16]
    calldata = bytes(4) + address + sum_ + packed
    assert typical_gas(sight(calldata=calldata)) == 50_000
    with_a_zero = bytes(4) + bytes(13) + HASH[:19] + sum_ + packed
    gas = 50_055  # near a boundary of the rounding
    assert typical_gas(sight(calldata=calldata, gas=gas)) == typical_gas(sight(calldata=with_a_zero, gas=gas - 12))


@pytest.mark.parametrize("time", [b"\x6b\x04\xca\xdd", (0x6B04CADD * 1000).to_bytes(6, "big")])
def test_zero_bytes_in_a_time_do_not_show_in_gas(time: bytes) -> None:
    """However many zeros there are beside it, which are no accident."""
    at = 0x6B04CADD
    plain, even = (bytes(4) + bytes(12) + time[:-1] + last + bytes(16) for last in (time[-1:], b"\0"))
    seen = sight(calldata=plain, gas=50_055)._replace(at=at)
    assert typical_gas(sight(calldata=even, gas=50_055 - 12)._replace(at=at)) == typical_gas(seen) == 50_100


def test_the_end_of_one_word_and_the_zeros_of_the_next_are_no_time() -> None:
    calldata = bytes(4) + HASH[:31] + b"\x6b" + bytes(31) + b"\x07"
    assert typical_gas(sight(calldata=calldata, gas=50_040)._replace(at=0x6B03CADD)) == 50_000


def test_a_zero_byte_shows_less_where_refunds_are_bounded() -> None:
    gross, words = 62_550, 4
    for zeros in (0, 3):
        calldata = bytes(4) + words * (HASH[: 32 - 2 * zeros] + b"\0\x07" * zeros)
        spent = gross - 12 * zeros * words
        found = sight(calldata=calldata, gas=spent - spent // 5, limit=int(spent * 1.25))
        assert typical_gas(found) == 50_000


def test_a_deduction_is_json() -> None:
    found = deduce([sight("release", {"params.payer": "0xaa", "params.payee": "0xbb"})])
    assert msgspec.json.decode(msgspec.json.encode(found))["pairs"] == [["0xaa", "0xbb"]]
