"""Pole and car from their configuration files alone, with every key in them."""

from __future__ import annotations

import json

from .world import World

CONFIG = """
[ledger]
url = "{url}"
contract = "{contract}"
chain_id = {chain_id}
confirmations = 0

[key]
name = "{name}"
passphrase_file = "../passphrase"

[supply]
listen = "127.0.0.1:0"
name = "Säule \\u2603 №1"
medium = "electricity"
price = "0.40"
tick = "0.001"
package = 3
credit_ticks = 2
mode = "pay-after"
line = "../line"
power_w = 6600
speed = 600.0

[consume]
supplier = "{supplier}"
medium = "electricity"
max_price = "0.45"
budget = "9"
deposit = "1"
quantity = 300
line = "../line"
"""


def configure(world: World, name: str, supplier: str = "127.0.0.1:1") -> None:
    facts = {key: world.manifest[key] for key in ("url", "chain_id")}
    text = CONFIG.format(contract=world.contract, name=name, supplier=supplier, **facts)
    (world.home(name) / "config.toml").write_text(text)


def test_configuration_files_suffice(world: World) -> None:
    configure(world, "pole")
    pole = world.start("pole", "supply", "--once", "--log", "json", "--json")
    configure(world, "car", pole.until("listening")["address"])
    car = world.command("car", "consume", "--json")
    assert car.returncode == 0, car.stderr
    bought = json.loads(car.stdout)
    assert bought["receipt"]["paid"] == 300 * 400
    assert "name=Säule ☃ №1" in car.stderr
    assert pole.answer()["sessions"][0]["receipt"] == bought["receipt"]
    listed = json.loads(world.command("car", "channel", "list", "--json").stdout)["channels"]
    assert [channel["deposit"] for channel in listed] == [1_000_000]


def test_a_car_without_a_supplier_is_told_how_to_name_one(world: World) -> None:
    done = world.command("car", "consume", *world.common("car"), "--json")
    assert done.returncode == 2
    assert "HOST:PORT" in json.loads(done.stdout)["error"]["advice"]
