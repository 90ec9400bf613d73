"""Bad input: one line that says what is wrong and what to do, the right exit code, no traceback, nothing changed."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from .world import World


def refused(world: World, name: str, code: int, *arguments: str) -> str:
    """Run a command that must fail; returns its one line."""
    before = sorted(path for path in world.home(name).rglob("*"))
    done = world.command(name, *arguments)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("penstock: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].count(":") >= 2, "no advice"
    assert sorted(path for path in world.home(name).rglob("*")) == before
    return lines[0]


def selling(world: World, *flags: str) -> list[str]:
    return [
        "supply", *world.common("pole"), "--log", "none", "--listen", "127.0.0.1:0", "--price", "0.40", "--tick",
        "0.001", "--line", str(world.directory / "line"), *flags,
    ]  # fmt: skip


def buying(world: World, address: str, *flags: str) -> list[str]:
    return [
        "consume", address, *world.common("car"), "--log", "none", "--quantity", "100", "--max-price", "0.45",
        "--budget", "9", "--line", str(world.directory / "line"), *flags,
    ]  # fmt: skip


def test_a_wrong_passphrase(world: World) -> None:
    wrong = world.directory / "wrong"
    wrong.write_text("not it\n")
    assert "passphrase" in refused(world, "pole", 2, *selling(world, "--passphrase-file", str(wrong)))


def test_an_unreachable_node(world: World) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        line = refused(world, "pole", 1, *selling(world, "--url", f"http://127.0.0.1:{held.getsockname()[1]}"))
    assert "node" in line


def test_a_wrong_chain_id(world: World) -> None:
    assert "chain 31337, not 1" in refused(world, "pole", 1, *selling(world, "--chain-id", "1"))


def test_no_contract_there(world: World) -> None:
    refused(world, "pole", 1, *selling(world, "--contract", "0x" + "11" * 20))


@pytest.mark.parametrize("session", ["S9999", "", "../etc", "S0004 "])
def test_no_such_session(world: World, session: str) -> None:
    assert "no session" in refused(world, "car", 2, "demo", "--session", session)


@pytest.mark.parametrize(
    "flags",
    [
        ("--price", "-0.40"),
        ("--price", "0"),
        ("--price", "1e400"),
        ("--price", "NaN"),
        ("--price", "0.0000001"),
        ("--tick", "999999999999999999999999999999999"),
        ("--tick", "-1"),
        ("--credit-ticks", "0"),
        ("--credit-ticks", "-5"),
        ("--package", "-1"),
        ("--power-w", "-6600"),
        ("--speed", "-1"),
        ("--speed", "nan"),
        ("--speed", "inf"),
        ("--patience", "-1"),
        ("--patience", "nan"),
        ("--mode", "never"),
        ("--medium", "gossip"),
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--log", "loud"),
        ("--name", "x" * 200),
        ("--url", "not a url"),
        ("--contract", "0x123"),
    ],
)
def test_absurd_numbers_and_words_of_a_supplier(world: World, flags: tuple[str, ...]) -> None:
    refused(world, "pole", 2, *selling(world, *flags))


def test_a_port_in_use(world: World) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = world.command("pole", *selling(world, "--listen", f"127.0.0.1:{port}"))
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert str(port) in done.stderr
        refused(world, "car", 2, "devnet", "--port", str(port))


@pytest.mark.parametrize(
    ("flags", "code", "word"),
    [
        (("--max-price", "0.39"), 1, "price over the limit"),
        (("--budget", "0.001"), 1, "budget too small"),
        (("--quantity", "-5"), 2, "quantity"),
        (("--quantity", "0"), 2, "quantity"),
        (("--budget", "-1"), 2, "budget"),
        (("--budget", "0.40 EUR"), 2, "budget"),
        (("--expect", "0x1234"), 2, "address"),
        (("--medium", "water"), 1, "electricity"),
        (("--deposit", "99999999999"), 1, "token"),
        (("--meter-error", "-1000000"), 2, "meter"),
    ],
)
def test_limits_of_a_consumer(world: World, flags: tuple[str, ...], code: int, word: str) -> None:
    pole = world.pole()
    address = pole.until("listening")["address"]
    done = world.command("car", *buying(world, address, *flags))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert word in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("penstock: ")]) == 1
    pole.end()


def test_nobody_at_the_address(world: World) -> None:
    (world.directory / "line").write_bytes(b"")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        done = world.command("car", *buying(world, f"127.0.0.1:{held.getsockname()[1]}"))
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["[supply", "price = ", "[supply]\nprice = 0.40", "[supply]\nprise = '0.40'", "\x00"])
def test_a_malformed_configuration(world: World, text: str) -> None:
    file = world.directory / "bad.toml"
    file.write_text(text)
    assert "bad.toml" in refused(world, "pole", 2, *selling(world, "--config", str(file)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "session_id,station_id,plugged_in,unplugged,energy_wh\n",
        "session_id,station_id,plugged_in,unplugged,energy_wh\nS1,A,2019-03-01T06:20:00,2019-03-01T07:40:00,42",
        "session_id,station_id,plugged_in,unplugged,energy_wh\nS1,A,2019-03-01T06:20:00,2019-03-01T07:40:00,-42\n",
        "session_id,station_id,plugged_in,unplugged,energy_wh\nS1,A,2019-03-01T06:20:00,2019-03-01T07\n",
        "session_id,station_id,plugged_in,unplugged,energy_wh\nS1,A,2019-03-01T09:20:00,2019-03-01T07:40:00,42\n",
    ],
)
def test_a_truncated_or_absurd_csv(world: World, text: str) -> None:
    file = world.directory / "bad.csv"
    file.write_text(text)
    assert "bad.csv" in refused(world, "car", 2, "replay", str(file))


def test_a_channel_that_is_not_there(world: World) -> None:
    refused(world, "car", 2, "channel", "list")
    refused(world, "car", 2, "channel", "show", "0x12")


def test_json_carries_the_error_as_one_object(world: World) -> None:
    done = world.command("car", "demo", "--session", "none", "--json")
    assert json.loads(done.stdout)["error"]["kind"] == "UsageError"


def test_a_damaged_line_and_a_damaged_journal(world: World, tmp_path: Path) -> None:
    (world.directory / "line").write_bytes(b"rubbish" * 100)
    done = world.command("pole", *selling(world))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (world.directory / "line").unlink()
    (world.home("pole") / "journal.db").write_bytes(b"rubbish" * 1000)
    done = world.command("pole", *selling(world))
    assert done.returncode == 1
    assert "journal" in done.stderr
    assert "Traceback" not in done.stderr
