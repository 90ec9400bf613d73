"""Which readings prove a meter false, and leave its payee the least."""

from __future__ import annotations

import pytest

from penstock.core.escrow import MeterReading, SignedReading
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.node.escrow_ending import contradiction

NOON = Instant(1_000)
TARIFF = Tariff(10, (Step(Instant(0), 4), Step(NOON, 10)))
DEPOSIT = 10_000


def signed(sequence: int, total: int, at: int = 1, turns: tuple[int, ...] = (), last: bool = False) -> SignedReading:
    return SignedReading(MeterReading(sequence, Instant(at), Quantity(total), tuple(map(Quantity, turns)), last), b"")


def test_readings_that_follow_one_another_prove_nothing() -> None:
    honest = [signed(1, 10), signed(3, 10), signed(4, 50, at=1_500, turns=(30,)), signed(6, 50, 1_500, (30,), True)]
    assert contradiction(TARIFF, DEPOSIT, honest) is None
    assert contradiction(TARIFF, DEPOSIT, honest[:1]) is None
    assert contradiction(TARIFF, DEPOSIT, []) is None
    assert contradiction(TARIFF, DEPOSIT, honest[:1] * 2) is None  # one reading, known twice


@pytest.mark.parametrize(
    "readings",
    [
        [signed(1, 100), signed(1, 900)],
        [signed(2, 100), signed(1, 900)],
        [signed(1, 100, last=True), signed(2, 900)],
        [signed(1, 100, at=5), signed(2, 900, at=4)],
        [signed(1, 100, at=1_500, turns=(50,)), signed(2, 900, at=1_600, turns=(60,))],
    ],
)
def test_those_that_no_honest_meter_signs_are_found_in_any_order(readings: list[SignedReading]) -> None:
    for order in (readings, readings[::-1]):
        pair = contradiction(TARIFF, DEPOSIT, order)
        assert pair is not None
        assert [one.reading.total for one in pair] == [100, 900]  # the lesser first


def test_of_several_the_pair_that_leaves_the_least_is_chosen() -> None:
    readings = [signed(5, 900), signed(5, 800), signed(6, 700), signed(1, 100)]
    pair = contradiction(TARIFF, DEPOSIT, readings)
    assert pair is not None
    assert min(one.reading.total for one in pair) == 700  # what was signed first contradicts none of them


def test_a_reading_that_does_not_fit_the_tariff_proves_nothing_to_the_contract() -> None:
    unturned, honest = signed(1, 100, at=1_500), signed(1, 900)
    assert contradiction(TARIFF, DEPOSIT, [unturned, honest]) is None
