"""What an observer of the chain concludes from what it has seen: who paid whom, how much, when, for what.

Each fact follows from names in calldata and logs: a value counts for a fact where its path ends in one of the names
that the contracts' sources use for it. Two follow from others: a price whose hash is there is found by trying, and
energy is what was paid by the price. A fact without a value is one that the chain does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.core.escrow import tariff_hash
from penstock.core.tariff import Tariff
from penstock.core.units import Price
from penstock.sim.observer import Sight

NAMES: dict[str, tuple[str, ...]] = {  # fact -> how the paths of its values end
    "payer": (".opener", ".payer", ":opener", ":payer"),
    "payee": (".partner", ".payee", ":partner", ":payee"),
    "deposit": (".deposit",),
    "paid": ("Settled:amounts.partner_balance", "Settled:word.drawn", "Released:word.drawn", "Taken:gains"),
    "meter's key": ("params.meter", ":meter"),
    "price": ("tariff.steps[*].amount",),
    "meter reading": ("reading.total", "first.total", "second.total"),
    "time of a reading": ("reading.at", "first.at", "second.at"),
    "energy": (),
    "times": (),
    "ticks proven": ("Proven:count", "proofs[*].count"),
}
"""The facts that an observer looks for, in the order in which people ask for them."""

HASHES = ("params.tariff", "Deposited:tariff")
GUESSES = range(0, 1_000_001, 1_000)  # token units a kWh: up to 1 EUR in tenths of a cent, as people set prices
PER = 1_000  # Wh

_NOTHING = ("0x" + 40 * "0", 0)


class Fact(msgspec.Struct, frozen=True):
    """A fact's values, in the order of the chain and each once, and where they were read: "function: path"."""

    values: tuple[Any, ...] = ()
    read_in: tuple[str, ...] = ()


class Deduction(msgspec.Struct, frozen=True):
    """All that an observer concludes. `times` are those of the transactions' blocks (seconds since 1970).

    `pairs` are payer and payee that some transaction names together.
    """

    facts: dict[str, Fact]
    pairs: tuple[tuple[str, str], ...]
    times: tuple[int, ...]

    def unknown(self) -> list[str]:
        """The facts that the chain does not tell."""
        return [name for name, fact in self.facts.items() if not fact.values]


def deduce(sights: list[Sight]) -> Deduction:
    """What follows from these transactions."""
    found: dict[str, dict[Any, None]] = {name: {} for name in NAMES}
    read: dict[str, dict[str, None]] = {name: {} for name in NAMES}
    pairs: dict[tuple[str, str], None] = {}
    for sight in sights:
        parties: dict[str, Any] = {}
        for path, value in _values(sight):
            for fact, ends in NAMES.items():
                if ends and value not in _NOTHING and path.endswith(ends):
                    found[fact][value] = None
                    read[fact][f"{sight.function}: {path.lstrip(':')}"] = None
                    parties[fact] = value
        if "payer" in parties and "payee" in parties:
            pairs[parties["payer"], parties["payee"]] = None
    _try_prices(sights, found["price"], read["price"])
    _divide(found, read)
    if sights:
        found["times"] = {f"those of {len(sights)} transactions": None}
        read["times"] = {"the blocks' timestamps": None}
    facts = {name: Fact(tuple(found[name]), tuple(read[name])) for name in NAMES}
    return Deduction(facts, tuple(pairs), tuple(sight.at for sight in sights))


def _try_prices(sights: list[Sight], prices: dict[Any, None], read: dict[str, None]) -> None:
    """Find flat prices by their hashes: there are not many that people set."""
    for sight in sights:
        for path, value in _values(sight):
            if path.endswith(HASHES) and not prices:
                for tried, amount in enumerate(GUESSES, start=1):
                    if value == "0x" + tariff_hash(Tariff.flat(amount, PER)).hex():
                        prices[amount] = None
                        read[f"{sight.function}: {path.lstrip(':')}, a hash, after trying {tried} prices"] = None


def _divide(found: dict[str, dict[Any, None]], read: dict[str, dict[str, None]]) -> None:
    """Energy by the meter's readings where there are any, or else by sum and price."""
    if found["meter reading"]:
        found["energy"], read["energy"] = dict(found["meter reading"]), dict(read["meter reading"])
    elif found["price"]:
        price = Price(next(iter(found["price"])), PER)
        found["energy"] = {price.affords(paid): None for paid in found["paid"]}
        read["energy"] = {"paid by price": None}


def _values(sight: Sight) -> Iterator[tuple[str, Any]]:
    """Every named value of a transaction: `:path` of its calldata, `Event:path` of its logs. Indexes become `*`."""
    if sight.function.startswith("open") and "place" in sight.said:  # who sends it is the payer
        yield ":opener", sight.sender
    for path, value in sight.said.items():
        yield f":{_bare(path)}", value
    for event, values in sight.logged:
        for path, value in values.items():
            yield f"{event}:{_bare(path)}", value


def _bare(path: str) -> str:
    head, bracket, rest = path.partition("[")
    return f"{head}[*]{_bare(rest.partition(']')[2])}" if bracket else path
