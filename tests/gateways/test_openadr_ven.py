"""A site and a grid's server over real sockets: orders that come, change, end and go; a server that dies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.core.grid import ChargeState, Event, Orders
from penstock.core.units import Duration, Instant
from penstock.gateways.openadr.times import text_of, written

from .grid import OTHER, Operator, clock, operator, posting, site, until, vtn

pytestmark = pytest.mark.asyncio


async def test_an_emergency_stops_the_supply_and_its_end_lets_it_go_on() -> None:
    async with vtn() as server, operator(server.url) as grid, site(server.url) as (ven, watched):
        emergency = await grid.ask("ALERT_GRID_EMERGENCY", "the grid is failing", priority=0)
        await until(lambda: ven.orders.supply_limit == 0)
        assert ven.orders.emergency == "the grid is failing"
        assert ven.orders.why == (f"emergency 0 W (the grid is failing): event {emergency}",)
        await grid.call_off(emergency)
        await until(lambda: ven.orders == Orders())
        assert [orders.supply_limit for orders in watched.orders] == [0, None]


async def test_limits_setpoints_charge_and_prices_arrive_in_the_units_of_this_site() -> None:
    async with vtn() as server, operator(server.url) as grid, site(server.url) as (ven, _):
        await grid.ask("IMPORT_CAPACITY_LIMIT", 11.0)
        await grid.ask("EXPORT_CAPACITY_LIMIT", 4600, units="W")
        await grid.ask("DISPATCH_SETPOINT", -3.7, units="KW")
        await grid.ask("CHARGE_STATE_SETPOINT", 0.8, units="PERCENT")
        await grid.ask("PRICE", 0.3172)
        await grid.ask("EXPORT_PRICE", -0.051)
        wanted = (11_000, 4_600, -3_700, ChargeState(800, "permille"), 317_200, -51_000)

        def got() -> tuple[object, ...]:
            o = ven.orders
            return o.supply_limit, o.feed_limit, o.setpoint, o.charge_state, o.price, o.export_price

        await until(lambda: got() == wanted, "all six")
        assert len(ven.orders.why) == 6


async def test_orders_change_when_an_event_begins_and_ends_and_not_when_it_is_polled() -> None:
    async with vtn() as server, operator(server.url) as grid:
        begin = clock() + 600
        period = {"start": written(Instant(begin)), "duration": text_of(Duration(700))}
        await grid.ask("IMPORT_CAPACITY_LIMIT", 3, intervalPeriod=period)
        async with site(server.url, every=60.0) as (ven, watched):
            await until(lambda: len(watched.orders) == 1)
            assert clock() >= begin
            assert ven.orders.supply_limit == 3_000
            await until(lambda: len(watched.orders) == 2)
            assert clock() >= begin + 700
            assert ven.orders == Orders()


async def test_orders_stay_in_force_while_the_server_is_away_until_their_ends() -> None:
    async with vtn() as server, operator(server.url) as grid:
        port = int(server.url.rpartition(":")[2])
        period = {"start": "0001-01-01", "duration": "PT2S"}
        await grid.ask("IMPORT_CAPACITY_LIMIT", 3, intervalPeriod=period)
        begun = clock()
        async with site(server.url) as (ven, watched):
            await until(lambda: ven.orders.supply_limit == 3_000)
            await server.stop()
            await until(lambda: watched.of("grid not reached"))
            assert ven.orders.supply_limit == 3_000
            await until(lambda: ven.orders == Orders())
            assert clock() >= begun + 1_900
            async with vtn(port) as again, operator(again.url) as back:
                await back.ask("IMPORT_CAPACITY_LIMIT", 5)
                await until(lambda: ven.orders.supply_limit == 5_000)
            assert len(watched.of("grid reached")) == 1


async def test_what_was_known_holds_in_the_next_run_though_the_server_is_away() -> None:
    async with vtn() as server, operator(server.url) as grid:
        async with site(server.url) as (ven, _):
            await grid.ask("ALERT_GRID_EMERGENCY", "failing")
            await until(lambda: ven.orders.supply_limit == 0)
            kept = msgspec.msgpack.encode(ven.known)
        await server.stop()
        known = msgspec.msgpack.decode(kept, type=tuple[Event, ...])
        async with site(server.url, known=known) as (ven, watched):
            await until(lambda: ven.orders.supply_limit == 0)
            await until(lambda: watched.of("grid not reached"))
            assert ven.orders.emergency == "failing"


async def test_a_notification_brings_an_order_sooner_than_the_next_poll() -> None:
    async with vtn() as server, operator(server.url) as grid:
        async with site(server.url, every=60.0, listen=("127.0.0.1", 0)) as (ven, _):
            await until(lambda: list(server.objects.all("SUBSCRIPTION")))
            begun = clock()
            limit = await grid.ask("IMPORT_CAPACITY_LIMIT", 3)
            await until(lambda: ven.orders.supply_limit == 3_000)
            assert clock() - begun < 5_000
            await grid.change(limit, "IMPORT_CAPACITY_LIMIT", 2)
            await until(lambda: ven.orders.supply_limit == 2_000)
            await grid.call_off(limit)
            await until(lambda: ven.orders == Orders())
        assert not list(server.objects.all("SUBSCRIPTION")), "it left one behind"


async def test_a_server_that_forgot_the_subscription_is_asked_for_it_again() -> None:
    async with vtn() as server:
        port = int(server.url.rpartition(":")[2])
        async with site(server.url, listen=("127.0.0.1", 0)):
            await until(lambda: list(server.objects.all("SUBSCRIPTION")))
            await server.stop()
            async with vtn(port) as again:
                await until(lambda: list(again.objects.all("SUBSCRIPTION")))


async def test_a_run_after_a_crash_takes_over_the_subscription_of_the_one_before() -> None:
    async with vtn() as server:

        def subscriptions() -> list[dict[str, Any]]:
            return list(server.objects.all("SUBSCRIPTION"))

        other = Operator(server.url, OTHER)
        callback = "http://127.0.0.1:9/"
        left = {
            "clientName": "pole-1",
            "objectOperations": [{"objects": ["EVENT"], "operations": ["CREATE"], "callbackUrl": callback}],
        }
        await other.client.create("/subscriptions", left)
        await other.client.close()
        async with site(server.url, who=OTHER, listen=("127.0.0.1", 0), callback=callback):
            await until(lambda: any("PROGRAM" in s["objectOperations"][0]["objects"] for s in subscriptions()))
            assert len(subscriptions()) == 1


async def test_a_site_is_known_by_its_name_with_its_resources_once_however_often_it_starts() -> None:
    async with vtn() as server:
        for _ in range(2):
            async with site(server.url, resources=("pole-1", "pole-2")):
                await until(lambda: len(list(server.objects.all("RESOURCE"))) == 2)
        assert [one["venName"] for one in server.objects.all("VEN")] == ["pole-1"]
        assert [one["resourceName"] for one in server.objects.all("RESOURCE")] == ["pole-1", "pole-2"]


async def test_a_token_that_ended_or_was_revoked_is_renewed() -> None:
    async with vtn(token_life=1) as server, operator(server.url) as grid, site(server.url) as (ven, watched):
        await grid.ask("IMPORT_CAPACITY_LIMIT", 3)
        await until(lambda: ven.orders.supply_limit == 3_000)
        begun = clock()
        await until(lambda: clock() > begun + 1_100)
        server.tokens.revoke()
        await grid.ask("EXPORT_CAPACITY_LIMIT", 1)
        await until(lambda: ven.orders.feed_limit == 1_000)
        assert not watched.of("grid not reached")


async def test_events_of_other_programs_and_for_other_targets_are_not_for_us() -> None:
    async with vtn() as server, operator(server.url) as grid:
        ours = await grid.found("ours")
        await grid.client.create("/vens", {
            "objectType": "BL_VEN_REQUEST", "clientID": "site", "venName": "pole-1", "targets": ["street", "town"],
        })  # fmt: skip
        await grid.ask("IMPORT_CAPACITY_LIMIT", 7, targets=["elsewhere"], priority=0)
        await grid.ask("IMPORT_CAPACITY_LIMIT", 6, targets=["street"], priority=1)
        await grid.found("theirs")
        await grid.ask("IMPORT_CAPACITY_LIMIT", 5, priority=0)
        async with site(server.url, programs=("ours",), targets=("street",)) as (ven, _):
            await until(lambda: ven.orders.supply_limit)
            assert ven.orders.supply_limit == 6_000
            grid.program = ours
            await grid.ask("IMPORT_CAPACITY_LIMIT", 4, priority=0)
            await until(lambda: ven.orders.supply_limit == 4_000)


async def test_units_that_a_program_states_need_not_be_in_its_events() -> None:
    async with vtn() as server, operator(server.url) as grid:
        descriptor = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "IMPORT_CAPACITY_LIMIT", "units": "W"}
        await grid.found("in watts", payloadDescriptors=[descriptor])
        await grid.ask("IMPORT_CAPACITY_LIMIT", 3_700, payloadDescriptors=[])
        async with site(server.url) as (ven, _):
            await until(lambda: ven.orders.supply_limit == 3_700)


async def test_a_callback_without_the_token_that_was_told_rings_nothing() -> None:
    async with vtn() as server, site(server.url, every=60.0, listen=("127.0.0.1", 0)) as (_, _), posting() as session:
        await until(lambda: list(server.objects.all("SUBSCRIPTION")))
        wanted = next(iter(server.objects.all("SUBSCRIPTION")))["objectOperations"][0]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}):
            async with session.post(wanted["callbackUrl"], json={}, headers=headers) as answer:
                assert answer.status == 401
        right = {"Authorization": f"Bearer {wanted['bearerToken']}"}
        async with session.post(wanted["callbackUrl"], data=b"{", headers=right) as answer:
            assert answer.status == 400
        notice = {"objectType": "EVENT", "operation": "CREATE", "object": {}}
        async with session.post(wanted["callbackUrl"], json=notice, headers=right) as answer:
            assert answer.status == 200
