"""The configuration: what it holds, flags over it, and one line for every malformed thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli import config
from penstock.core.errors import OutOfRange, UsageError
from penstock.core.identity import parse_address

FULL = """
[ledger]
url = "http://127.0.0.1:8545"
contract = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
escrow = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
chain_id = 31337
confirmations = 0

[key]
name = "pole"
passphrase_file = "pole.pass"

[supply]
listen = "[::1]:7411"
medium = "electricity"
price = "0.40"
tick = "0.01"
package = 25
credit_ticks = 3
mode = "pay-before"
line = "/run/line"
power_w = 6600
speed = 60

[consume]
supplier = "pole.example:7411"
max_price = "0.50"
budget = "20"
quantity = 17366
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(tmp_path: Path, text: str | bytes) -> str:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        config.load(path)
    line = caught.value.line()
    assert str(path) in line
    assert caught.value.advice
    assert "\n" not in line
    return line


def test_a_full_file_is_read(tmp_path: Path) -> None:
    read = config.load(written(tmp_path, FULL))
    assert (read.ledger.chain_id, read.ledger.confirmations) == (31337, 0)
    assert (read.supply.price, read.supply.mode, read.supply.speed) == ("0.40", "pay-before", 60.0)
    assert (read.consume.budget, read.consume.quantity) == ("20", 17_366)
    assert read.key.passphrase_file == str(tmp_path / "pole.pass"), "paths count from the file's directory"
    assert read.supply.line == "/run/line"


def test_home_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    home = config.home()
    assert (home.keys, home.journal, home.config) == tuple(tmp_path / n for n in ("keys", "journal.db", "config.toml"))
    monkeypatch.delenv("PENSTOCK_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert config.home().path == Path("/somewhere/.penstock")


def test_the_homes_file_may_be_missing_a_named_one_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    assert config.load() == config.Config()
    written(tmp_path, FULL)
    assert config.load().key.name == "pole"
    with pytest.raises(UsageError, match="there is no file"):
        config.load(tmp_path / "other.toml")
    with pytest.raises(UsageError, match="cannot read"):
        config.load(tmp_path)


@pytest.mark.parametrize("value", ["0.40", "1", "nan"])
def test_money_that_is_not_quoted_is_refused_with_the_advice_to_quote_it(tmp_path: Path, value: str) -> None:
    line = refusal(tmp_path, f"[supply]\nprice = {value}\n")
    assert "supply.price" in line
    assert 'in quotes, such as "0.40"' in line


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[supply]\nprise = '1'", "[supply] has no key 'prise': its keys are listen, "),
        ("[sell]\nprice = '1'", "no section or key 'sell'"),
        ("price = '1'", "no section or key 'price'"),
        ("supply = 3", "supply is not a section"),
        ("[[supply]]\nprice = '1'", "supply is not a section"),
        ("[supply]\nprice = '-1'", "supply.price cannot be '-1': write a price"),
        ("[supply]\nprice = '0,40'", "supply.price cannot be '0,40'"),
        ("[supply]\nprice = 'NaN'", "supply.price cannot be 'NaN'"),
        ("[supply]\nprice = '1e9'", "supply.price cannot be '1e9'"),
        ("[supply]\nprice = '1\\n'", "supply.price"),
        ("[supply]\nmode = 'later'", """supply.mode cannot be 'later': write "pay-after" or "pay-before\""""),
        ("[supply]\nlisten = 7411", "supply.listen cannot be 7411: write a host and a port"),
        ("[supply]\nlisten = '7411'", "supply.listen"),
        ("[supply]\nlisten = 'host:99999'", "supply.listen"),
        ("[supply]\nmedium = 'steam'", "supply.medium: no medium 'steam': one of electricity"),
        ("[supply]\npackage = 0", "supply.package cannot be 0: write a whole number above 0"),
        ("[supply]\npackage = 2.5", "supply.package cannot be the float 2.5"),
        ("[supply]\ncredit_ticks = true", "supply.credit_ticks cannot be True"),
        ("[supply]\nspeed = inf", "supply.speed"),
        ("[supply]\nspeed = nan", "supply.speed"),
        ("[ledger]\ncontract = '0x12'", "ledger.contract"),
        ("[ledger]\ncontract = '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD'", "fails its checksum"),
        ("[ledger]\nescrow = '0x12'", "ledger.escrow"),
        ("[ledger]\nurl = 'ftp://x'", "ledger.url cannot be 'ftp://x': write an address such as"),
        ("[ledger]\nchain_id = 99999999999999999999999", "ledger.chain_id"),
        ("[key]\nname = ''", "key.name cannot be ''"),
        ("[consume]\nquantity = 1979-05-27", "consume.quantity"),
        ("[consume]\nbudget = {a = 1}", "consume.budget"),
    ],
)
def test_a_malformed_value_is_named_with_what_is_expected(tmp_path: Path, text: str, what: str) -> None:
    assert what in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[supply]\n\nprice = \n", "line 3: "),
        ("[supply\n", "line 1: "),
        ("[key]\nname = 'a'\nname = 'b'\n", "line 3: "),
        ("[key]\nname = 'a", "line 2: "),
        ('[key]\nname = """a', "line 2: "),
        (b"[key]\nname = '\xff'\n", "line 2: not UTF-8"),
        ("x = " + "[" * 5000, ": "),
        ("#" * (config.MAX_FILE + 1), "more than"),
    ],
)
def test_what_is_no_toml_is_refused_by_its_line(tmp_path: Path, text: str | bytes, what: str) -> None:
    assert what in refusal(tmp_path, text)


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    supply = config.load(written(tmp_path, FULL)).supply
    changed = config.over(supply, price="0.30", tick=None, package=10)
    assert (changed.price, changed.tick, changed.package, changed.mode) == ("0.30", "0.01", 10, "pay-before")
    assert supply.price == "0.40"


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"price": "cheap"}, "--price cannot be 'cheap': write a price"),
        ({"credit_ticks": 0}, "--credit-ticks cannot be 0"),
        ({"medium": "steam"}, "--medium: no medium 'steam'"),
        ({"listen": "localhost:70000"}, "--listen: "),
        ({"speed": float("nan")}, "--speed cannot be the float nan"),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.over(config.SupplySection(), **flags)
    assert what in caught.value.line()


def test_what_a_command_misses_is_named_with_both_ways_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    assert config.need("0.5", "consume", "max_price") == "0.5"
    with pytest.raises(UsageError) as caught:
        config.need(None, "consume", "max_price")
    for part in ("--max-price", "[consume]", str(tmp_path / "config.toml")):
        assert part in caught.value.line()


def test_an_endpoint_is_a_host_and_a_port() -> None:
    assert config.endpoint("127.0.0.1:0") == ("127.0.0.1", 0)
    assert config.endpoint("[::1]:7411") == ("::1", 7411)
    for text in ("", "7411", "host:", ":1", "host:65536", "a b:1", "host:1\n", "::1:7411"):
        with pytest.raises(UsageError):
            config.endpoint(text)


def test_a_node_is_an_endpoint_behind_an_account_or_not() -> None:
    account = parse_address("0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf")
    assert config.node_at("10.0.0.1:7421") == ("10.0.0.1", 7421, None)
    assert config.node_at("0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf@[::1]:7421") == ("::1", 7421, account)
    assert config.node_at("0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf@[::1]:7421").name == "[::1]:7421"
    for text in ("", "0x7E5F@host:1", "@host:1", "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf@host", "host:65536"):
        with pytest.raises(UsageError):
            config.node_at(text)
    with pytest.raises(OutOfRange):
        config.node_at("0x7E5F4552091A69125d5DfCb7b8C2659029395bDf@host:1")
