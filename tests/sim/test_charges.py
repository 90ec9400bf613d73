"""The file of real sessions: its totals, and every way in which a user's own file can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.core.errors import UsageError
from penstock.sim.charges import HEADER, Charge, power_w, read_charges

GOOD = "S1,CA-1,2019-03-01T07:35:00,2019-03-01T16:45:00,17366"


def refusal(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "charges.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as caught:
        read_charges(path)
    line = caught.value.line()
    assert str(path) in line
    assert caught.value.advice
    assert "\n" not in line
    return line


def charge(energy: int, minutes: int) -> Charge:
    return Charge("S", "CA", 0, minutes * 60_000, energy)  # type: ignore[arg-type]  # plain numbers read better here


def test_the_month_is_complete() -> None:
    charges = read_charges()
    assert len(charges) == 954
    assert len({charge.station for charge in charges}) == 47
    assert sum(charge.energy_wh for charge in charges) == 8_900_523


def test_a_session_is_read_as_it_is_written() -> None:
    (found,) = [charge for charge in read_charges() if charge.session_id == "S0004"]
    assert (found.station, found.energy_wh) == ("CA-321", 17_366)
    assert found.plugged_in == 1_551_425_700_000  # 2019-03-01T07:35:00
    assert found.unplugged - found.plugged_in == 550 * 60_000


def test_a_short_stay_is_replayed_at_the_power_that_it_needs() -> None:
    powers = {charge.session_id: power_w(charge) for charge in read_charges()}
    assert powers["S0004"] == 6_600
    assert powers["S0502"] == 8_298  # 2,766 Wh in 20 minutes
    assert sum(power > 6_600 for power in powers.values()) == 30


def test_the_power_is_rounded_up_so_that_the_energy_fits() -> None:
    assert power_w(charge(6_600, 60)) == 6_600
    assert power_w(charge(6_601, 60)) == 6_601
    assert power_w(charge(1_000, 7)) == 8_572  # 8,571.43 W would fall short
    assert all(power_w(c) * (c.unplugged - c.plugged_in) >= c.energy_wh * 3_600_000 for c in read_charges())


def test_a_users_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"{HEADER}\r\n{GOOD}\r\n")
    assert [charge.energy_wh for charge in read_charges(path)] == [17_366]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("", "1 columns"),
        (GOOD + ",", "6 columns"),
        (GOOD.rsplit(",", 1)[0], "4 columns"),
        (GOOD.replace("17366", "-5"), "energy_wh '-5'"),
        (GOOD.replace("17366", "0"), "energy_wh '0'"),
        (GOOD.replace("17366", "1.5"), "energy_wh '1.5'"),
        (GOOD.replace("17366", "1e5"), "energy_wh '1e5'"),
        (GOOD.replace("17366", ""), "energy_wh ''"),
        (GOOD.replace("17366", "1000001"), "energy_wh '1000001'"),
        (GOOD.replace("17366", "9" * 5000), "energy_wh '9999"),
        (GOOD.replace("S1", ""), "session_id ''"),
        (GOOD.replace("CA-1", "CA 1"), "station_id 'CA 1'"),
        (GOOD.replace("03-01T07", "02-30T07"), "plugged_in '2019-02-30"),
        (GOOD.replace("03-01T16:45:00", "03-01"), "unplugged '2019-03-01'"),
        (GOOD.replace("T16:45:00", "T16:45:00Z"), "unplugged"),
        (GOOD.replace("2019", "1819"), "before 1970"),
        (GOOD.replace("T16", "T07").replace("07:45", "07:35"), "not after"),
        (GOOD.replace("T16", "T06"), "not after"),
        (GOOD.replace("T16:45:00", "T07:35:01"), "would need"),
        (GOOD.replace("S1", "Sä"), "not ASCII"),
    ],
)
def test_a_wrong_row_is_refused_by_its_line(tmp_path: Path, row: str, what: str) -> None:
    line = refusal(tmp_path, f"{HEADER}\n{GOOD.replace('S1', 'S0')}\n{row}\n")
    assert "line 3" in line
    assert what in line


def test_a_session_that_comes_twice_is_refused(tmp_path: Path) -> None:
    assert "line 3: session S1 is in line 2" in refusal(tmp_path, f"{HEADER}\n{GOOD}\n{GOOD}\n")


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """A truncated last number would otherwise be a smaller one."""
    assert "line 2: does not end in a newline" in refusal(tmp_path, f"{HEADER}\n{GOOD}"[:-2])


@pytest.mark.parametrize("content", ["", "\n", "id,station\n", HEADER + "\n", GOOD + "\n", HEADER, b"\xff\xfe\n"])
def test_a_file_that_is_no_list_of_sessions_is_refused(tmp_path: Path, content: str | bytes) -> None:
    refusal(tmp_path, content)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            read_charges(path)
