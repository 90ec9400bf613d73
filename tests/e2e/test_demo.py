"""`penstock demo` and `penstock replay`, the commands themselves."""

from __future__ import annotations

import json
from pathlib import Path

from .world import World

SESSIONS = """session_id,station_id,plugged_in,unplugged,energy_wh
S1,A,2019-03-01T06:20:00,2019-03-01T07:40:00,4216
S2,B,2019-03-01T07:05:00,2019-03-01T07:35:00,786
S3,A,2019-03-01T08:30:00,2019-03-01T16:20:00,1
S4,B,2019-03-01T08:35:00,2019-03-01T08:40:00,2011
"""


def test_the_demo_agrees_to_the_last_token_unit(world: World) -> None:
    done = world.command("car", "demo", "--session", "S0002", "--speed", "2000", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["session"] == "S0002"
    assert document["energy_wh"] == {"supplier": 786, "consumer": 786}
    assert (document["tick_value"], document["ticks"], document["paid"]) == (1_000, 314, 314_400)
    assert document["credit_limit"] == 2_000
    assert max(document["max_exposure"].values()) <= 2_000
    assert document["reason"] == "target reached"
    assert [one["what"] for one in document["transactions"]] == ["open with authorization", "close together"]
    assert all(one["gas"] > 21_000 and one["hash"].startswith("0x") for one in document["transactions"])
    gains = {side: one["after"] - one["before"] for side, one in document["balances"].items()}
    assert gains == {"supplier": 314_400, "consumer": -314_400}


def test_a_demo_leaves_what_it_is_asked_to_keep(world: World) -> None:
    kept = world.directory / "kept"
    done = world.command("car", "demo", "--session", "S0022", "--speed", "100000", "--keep", str(kept), "--json")
    assert done.returncode == 0, done.stderr
    assert (kept / "supplier" / "journal.db").exists()
    again = world.command("car", "demo", "--keep", str(kept))
    assert again.returncode == 2


def test_a_replay_settles_what_was_paid(world: World, tmp_path: Path) -> None:
    file = tmp_path / "sessions.csv"
    file.write_text(SESSIONS)
    done = world.command("car", "replay", str(file), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    energy = 4216 + 786 + 1 + 2011
    assert document["sessions"] == document["completed"] == 4
    assert document["energy_wh"] == energy
    assert document["paid"] == document["settled"] == energy * 400
    assert document["credit_limit"] == 8_000
    assert document["max_exposure"] <= 8_000
    assert document["ticks"] == sum(wh * 400 // 1_000 for wh in (4216, 786, 1, 2011))
    assert set(document) >= {"gas_total", "gas_per_session", "wall_s", "stream_s", "ticks_per_s"}


def test_the_demo_over_three_hubs_agrees_to_the_last_token_unit(world: World) -> None:
    done = world.command("car", "demo", "--scenario", "hops", "--session", "S0002", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["path"] == ["consumer", "hub1", "hub2", "hub3", "supplier"]
    assert (document["energy_wh"], document["paid"]) == ({"supplier": 786, "consumer": 786}, 314_400)
    heard = document["hub_messages"]
    assert (heard["between_lock_and_fold"], list(heard["hubs"])) == (0, document["path"][1:4])
    assert all(0 < one["at_lock"] == one["at_end"] < one["in_all"] <= 5 for one in heard["hubs"].values())
    fees = document["fees"]
    assert fees["all"] == sum(fee for name, fee in fees.items() if name != "all") > 0
    gains = {side: one["after"] - one["before"] for side, one in document["balances"].items()}
    assert gains == {
        "supplier": 314_400, "consumer": -314_400 - fees["all"], **{name: fees[name] for name in document["path"][1:4]},
    }  # fmt: skip
    assert max(document["max_exposure"].values()) <= document["credit_limit"] == 2_000
    assert document["ticks_per_s"] > 0


def test_a_demo_goes_over_as_many_hubs_as_its_scenario_has(world: World) -> None:
    done = world.command("car", "demo", "--scenario", "hops", "--hubs", "1", "--session", "S0022", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == ["consumer", "hub1", "supplier"]
    for scenario, hubs in (("hops", "4"), ("plain", "1")):
        refused = world.command("car", "demo", "--scenario", scenario, "--hubs", hubs)
        assert refused.returncode == 2
        assert "leave out --hubs" in refused.stderr
