from __future__ import annotations

import pytest

from penstock.core.errors import OutOfRange
from penstock.core.medium import MEDIA, medium


def test_every_medium_of_the_design_is_there_with_its_unit() -> None:
    units = {"electricity": "Wh", "gas": "L", "water": "L", "data": "bytes", "compute": "core-ms", "time": "ms"}
    units |= {"requests": "requests", "distance": "m"}
    assert {name: medium(name).unit for name in MEDIA} == units
    assert all(medium(name).name == name and medium(name).per > 0 for name in MEDIA)


@pytest.mark.parametrize("name", ["", "Electricity", "x" * 10_000])
def test_an_unknown_medium_is_refused_with_a_list(name: str) -> None:
    with pytest.raises(OutOfRange) as caught:
        medium(name)
    assert "electricity" in caught.value.advice
    assert len(str(caught.value)) < 80
