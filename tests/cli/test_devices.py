"""The devices of a medium are chosen by what is sold, and what does not fit it is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.cli.config import ConsumeSection, SupplySection, over
from penstock.cli.devices import at_loopback, need_draw, need_supply, quantity_of
from penstock.core.errors import UsageError


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"medium": "data"}, "give --forward"),
        ({"medium": "data", "forward": "127.0.0.1:1", "line": "x"}, "leave out --line"),
        ({"medium": "data", "forward": "127.0.0.1:1", "sign": "key"}, "leave out --sign"),
        ({"forward": "127.0.0.1:1"}, "give --medium data"),
        ({}, "give --line"),
    ],
)
def test_a_supplier_names_the_device_of_its_medium(flags: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        need_supply(over(SupplySection(), **flags))
    assert said in refused.value.line()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"medium": "data"}, "give --listen"),
        ({"medium": "data", "listen": "127.0.0.1:1", "line": "x"}, "leave out --line"),
        ({"listen": "127.0.0.1:1"}, "give --medium data"),
        ({}, "give --line"),
    ],
)
def test_a_consumer_names_the_device_of_its_medium(flags: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        need_draw(over(ConsumeSection(), **flags))
    assert said in refused.value.line()


def test_what_fits_is_taken() -> None:
    for check in (
        lambda: need_supply(SupplySection(medium="data", forward="127.0.0.1:80")),
        lambda: need_supply(SupplySection(line="cable")),
        lambda: need_draw(ConsumeSection(medium="data", listen="127.0.0.1:0")),
        lambda: need_draw(ConsumeSection(line="cable")),
    ):
        checked: Callable[[], None] = check
        checked()


@pytest.mark.parametrize("key", ["forward", "listen"])
def test_an_address_that_is_none_is_refused_with_its_flag(key: str) -> None:
    section = SupplySection() if key == "forward" else ConsumeSection()
    for text in ("nowhere", "127.0.0.1", "127.0.0.1:65536", "http://127.0.0.1:80"):
        with pytest.raises(UsageError, match=f"--{key}"):
            over(section, **{key: text})


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0", 0),
        ("20000", 20_000),
        ("1GB", 10**9),
        ("1.5GB", 1_500_000_000),
        ("0.000001MB", 1),
        ("10kB", 10_000),
        ("2TB", 2 * 10**12),
    ],
)
def test_quantities_are_read_as_people_write_them(text: str, units: int) -> None:
    assert quantity_of(text) == units


@pytest.mark.parametrize("text", ["much", "1 GB", "1gb", "-1", "1e9", "1.GB", ".5GB", "\u0661", "9" * 40, "1GiB"])
def test_what_is_no_quantity_is_refused_with_its_flag(text: str) -> None:
    with pytest.raises(UsageError, match="--quantity cannot be"):
        over(ConsumeSection(), quantity=quantity_of(text))


def test_a_port_alone_is_one_of_this_machine() -> None:
    assert at_loopback("8081") == "127.0.0.1:8081"
    assert at_loopback("0.0.0.0:8081") == "0.0.0.0:8081"
