"""The kits of ledgers, meters and valves miss what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.channel import ChannelParams
from penstock.core.identity import Key
from penstock.core.meter import Reading
from penstock.core.ports import Mined, ProvenTicks, SignedVoucher
from penstock.core.units import Amount, Quantity
from penstock.sim.tender import SimLedger
from penstock.testing.ledger import LEDGER_CHECKS
from penstock.testing.meter import METER_CHECKS, Device
from penstock.testing.two_way import TWO_WAY_CHECKS, Ends

from .flows import LineFlow, TwoWayLine
from .test_ledgers import in_the_simulation


class _Hasty(SimLedger):
    """Says that it is done before anything is mined."""

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        asyncio.get_running_loop().create_task(super().open(key, params, deposit))
        return [Mined("open", bytes(32), 0, 0)]


class _Generous(SimLedger):
    """Pays a claim as often as it is made."""

    async def claim(self, key: Key, row: SignedVoucher) -> list[Mined]:
        def act(accounts: Any, _: int) -> None:
            accounts.balances[key.address] += row.voucher.amount

        return await self._send(key, row.params, "claim", act)


class _Forgetful(SimLedger):
    """Knows only the last of what was proven."""

    async def proven(self, params: ChannelParams, since: int | None = None) -> list[ProvenTicks]:
        return (await super().proven(params, since))[-1:]


class _Elsewhere(SimLedger):
    """Takes any channel for one of its own."""

    def _check(self, params: ChannelParams) -> None:
        pass


@pytest.mark.parametrize(
    ("ledger", "check", "says"),
    [
        (_Hasty, "an_opening_is_there_when_the_call_returns", "gained"),
        (_Generous, "a_claim_pays_what_is_new_of_a_voucher", "was taken"),
        (_Forgetful, "ticks_that_were_proven_are_shown_to_everybody", "not what was proven"),
        (_Elsewhere, "another_ledgers_channel_is_refused", "was taken|is no WrongLedger"),
    ],
)
def test_a_ledger_that_does_not_do_its_duty_is_found(ledger: type[SimLedger], check: str, says: str) -> None:
    rule = next(rule for rule in LEDGER_CHECKS if rule.__name__ == check)

    async def break_it(stand: Any) -> None:
        stand.ledger.__class__ = ledger
        await rule(stand)

    with pytest.raises(AssertionError, match=says):
        in_the_simulation(break_it)


class _Stuck:
    """A valve that does not close."""

    def __init__(self, line: Any) -> None:
        self.allow = line.allow

    def close(self) -> None:
        pass


class _Coarse:
    """A valve that lets in whole packages, and one more than was allowed."""

    def __init__(self, line: Any) -> None:
        self._line = line
        self.close = line.close

    def allow(self, total: Quantity) -> None:
        self._line.allow(Quantity(total + 25))


class _Trip:
    """A meter that counts from 0 whenever it is switched on."""

    def __init__(self, line: Any) -> None:
        self._line, self._base = line, line.read().total

    def read(self) -> Reading:
        reading = self._line.read()
        return Reading(Quantity(reading.total - self._base), reading.at)

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        self._line.watch(lambda _: on_reading(self.read()))


@pytest.mark.parametrize(
    ("part", "device", "check", "says"),
    [
        ("valve", _Stuck, "nothing_flows_through_a_closed_valve", "flows on|through a closed valve"),
        ("valve", _Coarse, "no_more_flows_than_was_allowed", "was allowed"),
        ("meter", _Trip, "the_total_outlives_its_process", "after a restart"),
    ],
)
def test_a_device_that_does_not_do_its_duty_is_found(
    part: str, device: Callable[[Any], Any], check: str, says: str, tmp_path: Path
) -> None:
    rule = next(rule for rule in METER_CHECKS if rule.__name__ == check)

    class Flow(LineFlow):
        async def open(self) -> Device:
            honest = await super().open()
            return honest._replace(**{part: device(self.supply)})

    async def play() -> None:
        flow = Flow(tmp_path)
        try:
            with pytest.raises(AssertionError, match=says):
                await rule(flow)
        finally:
            await flow.stop()

    asyncio.run(play())


class _Alone:
    """A pole's valve that asks no car, for what goes to it."""

    def __init__(self, line: Any) -> None:
        self._line = line
        self.close = line.close

    def allow(self, total: Quantity, export: Quantity) -> None:
        self._line.allow(total)


class _Drained:
    """A car's valve that only ever opens further."""

    def __init__(self, car: Any) -> None:
        self.allow = car.allow

    def close(self) -> None:
        pass


class _Slack:
    """A throttle that leaves a trickle."""

    def __init__(self, line: Any) -> None:
        self._line = line

    def limit(self, supply: int | None, feed: int | None) -> None:
        self._line.limit(None if supply is None else max(supply, 500), None if feed is None else max(feed, 500))


class _Net(_Trip):
    """A meter with one register for both ways."""

    def __init__(self, line: Any) -> None:
        self._line = line

    def read(self) -> Reading:
        reading = self._line.read()
        return Reading(Quantity(max(0, reading.total - reading.export)), reading.at, export=reading.export)


@pytest.mark.parametrize(
    ("part", "device", "check", "says"),
    [
        ("valve", _Alone, "nothing_flows_that_only_one_side_allows", "the consumer has not allowed|flows on"),
        ("other_valve", _Drained, "either_side_stops_the_flow_either_way", "flows on|the consumer's closed valve"),
        ("throttle", _Slack, "a_throttle_stops_what_flows", "flowed on|flows on"),
        ("meter", _Net, "the_flow_turns_round_and_back", "only|fell"),
    ],
)
def test_a_device_for_both_ways_that_does_not_do_its_duty_is_found(
    part: str, device: Callable[[Any], Any], check: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.testing.two_way.PATIENCE", 1.0)
    rule = next(rule for rule in TWO_WAY_CHECKS if rule.__name__ == check)

    class Flow(TwoWayLine):
        async def open(self) -> Ends:
            honest = await super().open()
            return honest._replace(**{part: device(getattr(honest, part))})

    async def play() -> None:
        flow = Flow(tmp_path, speed=20_000)
        try:
            with pytest.raises(AssertionError, match=says):
                await rule(flow)
        finally:
            await flow.end()
            await flow.leave()

    asyncio.run(play())
