"""The register file: whole under every write, private to one writer, and told apart from anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.core.errors import DeviceError
from penstock.sim.register import SIZE, Entry, Register

WRITER = """
import sys
from pathlib import Path
from penstock.sim.register import Entry, Register
register = Register.write_end(Path(sys.argv[1]))
for number in range(2, 2**63):
    register.write(Entry(number, number, number, number))
"""


def test_a_new_line_counts_from_zero(tmp_path: Path) -> None:
    register = Register.write_end(tmp_path / "line")
    assert (register.read().total, register.read().power) == (0, 0)
    assert (tmp_path / "line").stat().st_size == SIZE


def test_what_was_written_is_there_for_others_and_after_a_restart(tmp_path: Path) -> None:
    writer = Register.write_end(tmp_path / "line")
    reader = Register.read_end(tmp_path / "line")
    for sequence in (2, 3, 4):
        entry = Entry(sequence, 100 * sequence, 2**52 + sequence, -6_600, export=7 * sequence)
        writer.write(entry)
        assert reader.read() == entry
    writer.close()
    assert Register.write_end(tmp_path / "line").read().total == 400


def test_a_read_is_never_torn(tmp_path: Path) -> None:
    path = tmp_path / "line"
    Register.write_end(path).close()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    try:
        register = Register.read_end(path)
        last, moves = 1, 0
        while moves < 3000 and process.poll() is None:
            entry = register.read()
            if entry.sequence > 1:
                assert entry.sequence == entry.total == entry.at == entry.power
            assert entry.sequence >= last
            moves += entry.sequence > last
            last = entry.sequence
        assert moves == 3000
    finally:
        process.kill()
        process.wait()


def test_a_write_that_was_cut_off_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "line"
    writer = Register.write_end(path)
    writer.write(Entry(2, 200, 2, 0))
    writer.write(Entry(3, 300, 3, 0))
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, (4).to_bytes(8, "little") + (999).to_bytes(8, "little"), 64)  # the half of entry 4
    os.close(descriptor)
    assert writer.read().total == 300


def test_a_line_has_one_pole(tmp_path: Path) -> None:
    first = Register.write_end(tmp_path / "line")
    with pytest.raises(DeviceError, match="has a pole already"):
        Register.write_end(tmp_path / "line")
    first.close()
    Register.write_end(tmp_path / "line").close()


def test_a_missing_line_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no power line") as caught:
        Register.read_end(tmp_path / "line")
    assert "start the pole" in caught.value.advice
    with pytest.raises(DeviceError, match="no power line"):
        Register.write_end(tmp_path / "none" / "line")
    with pytest.raises(DeviceError, match="cannot open"):
        Register.write_end(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"x", b"x" * SIZE, b"PENSLINE" + bytes(SIZE), b"PENSLINE\2" + bytes(SIZE), b"PENSLINE\1" + b"\xff" * SIZE],
)
def test_a_file_that_is_no_line_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "line"
    path.write_bytes(content)
    for end in (Register.write_end, Register.read_end):
        with pytest.raises(DeviceError) as caught:
            end(path)
        assert caught.value.advice
    assert path.read_bytes() == content


def test_a_line_that_is_cut_short_under_a_reader_is_told(tmp_path: Path) -> None:
    path = tmp_path / "line"
    Register.write_end(path)
    reader = Register.read_end(path)
    os.truncate(path, 100)
    with pytest.raises(DeviceError, match="100 bytes"):
        reader.read()
    os.truncate(path, 0)
    with pytest.raises(DeviceError, match="not set up"):
        reader.read()
