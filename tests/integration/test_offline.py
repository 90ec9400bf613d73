"""A session between three network namespaces from which no ledger can be reached, as root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_session_without_a_route_to_the_ledger_is_settled_later(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "demo", "--scenario", "offline", "--session", "S0002", "--json"],
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    offline = document["offline"]
    assert offline["ledger_reached"] is False
    assert offline["energy_wh"] == 786
    assert offline["paid"] == 314_400
    assert [route.split()[0] for routes in offline["routes"].values() for route in routes] == ["10.98.0.0/24"] * 3
    assert offline["leaned_on"], "nobody was told what that leans on"
    assert {one["who"] for one in offline["leaned_on"]} >= {"hub"}
    assert all(one["seen_s"] + one["good_s"] == 1_800 for one in offline["leaned_on"])
    assert document["hub_messages"]["between_lock_and_fold"] == 0
    gains = {side: one["after"] - one["before"] for side, one in document["balances"].items()}
    assert gains["supplier"] == document["paid"]
    assert sum(gains.values()) == 0
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"pen{os.getpid()}" not in left
    assert "pen" not in left


def test_who_may_make_no_network_is_told_what_it_takes(tmp_path: Path) -> None:
    bare = ["setpriv", "--bounding-set=-net_admin,-sys_admin"]
    done = subprocess.run(
        [*bare, sys.executable, "-m", "penstock", "demo", "--scenario", "offline", "--session", "S0022"],
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("run this as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN\n")
