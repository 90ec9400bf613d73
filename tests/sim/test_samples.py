from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from penstock.core.errors import UsageError
from penstock.core.units import MAX_AMOUNT
from penstock.sim.samples import LONGEST_WHY, About, Sample, SampleLog, read_course

ABOUT = About("A car at a pole", "cEUR", 6, 4_000, 2_000)


def sample(number: int, why: str = "") -> Sample:
    return Sample(1_000 * number, -7_400, -5_000, None, number, 0, 1_000 * number, 0, 2_500, 0, 10 * number, 3, why)


def written(path: Path, *numbers: int) -> Path:
    with SampleLog(path, ABOUT) as log:
        for number in numbers:
            log.append(sample(number))
    return path


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    with SampleLog(path, ABOUT) as log:
        log.append(sample(1, "the price fell\nbelow 0"))
        log.append(sample(2))
    course = read_course(path)
    assert course.about == ABOUT
    assert course.samples == (sample(1, "the price fell\nbelow 0"), sample(2))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_restarted_process_goes_on_with_its_file(tmp_path: Path) -> None:
    path = written(written(tmp_path / "samples", 1, 2), 3)
    assert [one.ticks for one in read_course(path).samples] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_torn_line_is_left_out_and_written_over(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "samples", 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [one.ticks for one in read_course(path).samples] == [1]
    assert [one.ticks for one in read_course(written(path, 3)).samples] == [1, 3]


@pytest.mark.parametrize("left", [0, 1, 20])
def test_a_torn_beginning_is_begun_again(tmp_path: Path, left: int) -> None:
    path = written(tmp_path / "samples")
    path.write_bytes(path.read_bytes()[:left])
    assert read_course(written(path, 1)).samples == (sample(1),)


WRITER = """
import resource, signal, sys
from itertools import count
from pathlib import Path
from penstock.core.errors import LocalError
from penstock.sim.samples import About, Sample, SampleLog
path, most = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
with SampleLog(path, About("A car at a pole", "cEUR", 6, 4_000, 2_000)) as log:
    for number in count(1):
        try:
            log.append(Sample(1_000 * number, 1, 1, None, number, 0, 1, 0, 0, 0, 1, 0))
        except LocalError as error:
            print(number, error.line())
            break
"""


def test_a_killed_process_leaves_whole_samples(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), "1000000000"]) as process:
        while not (path.exists() and path.stat().st_size > 100_000):
            assert process.poll() is None
        process.kill()
    ticks = [one.ticks for one in read_course(path).samples]
    assert len(ticks) > 500
    assert ticks == list(range(1, len(ticks) + 1))


def test_a_disk_that_is_full_leaves_whole_samples(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    said = subprocess.check_output([sys.executable, "-c", WRITER, str(path), "2000"], text=True)
    number, _, line = said.partition(" ")
    assert [one.ticks for one in read_course(path).samples] == list(range(1, int(number)))
    assert path.read_bytes().endswith(b"\n")
    assert "cannot write" in line
    assert "free its disk" in line


def test_a_clock_that_was_set_back_stands_still(tmp_path: Path) -> None:
    course = read_course(written(tmp_path / "samples", 5, 3, 7))
    assert [one.at for one in course.samples] == [5_000, 5_000, 7_000]


def test_a_reason_is_cut_to_what_a_line_holds(tmp_path: Path) -> None:
    with SampleLog(tmp_path / "samples", ABOUT) as log:
        log.append(sample(1, "\0" * 10_000))
        log.append(sample(2, "half of \ud83d"))
    reasons = [one.why for one in read_course(tmp_path / "samples").samples]
    assert reasons == ["\0" * LONGEST_WHY, "half of ?"]


@pytest.mark.parametrize("content", [b"a letter to somebody\n", b"no line at all", b'{"title":1}\n', bytes(10_000)])
def test_another_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="letter cannot be used for samples"):
        SampleLog(path, ABOUT)
    with pytest.raises(UsageError, match="letter cannot be used for samples"):
        read_course(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff\xfe",
        msgspec.json.encode(sample(1)).replace(b"-7400", b"1e4"),
        msgspec.json.encode(sample(1)).replace(b"-7400", b"null"),
        msgspec.json.encode(sample(1)).replace(b'"at":1000', b'"at":-1'),
        msgspec.json.encode(sample(1)).replace(b'"paid":1000', b'"paid":%d' % (MAX_AMOUNT + 1)),
        msgspec.json.encode(sample(1)).replace(b'"paid":1000', b'"paid":' + b"9" * 5_000),
        msgspec.json.encode(sample(1)).replace(b'{"at"', b'{"of":1,"at"'),
    ],
)
def test_a_line_that_is_no_sample_is_named(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "samples", 1)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UsageError, match="line 3: "):
        read_course(path)


def test_a_file_without_samples_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 samples"):
        read_course(written(tmp_path / "samples"))
    with pytest.raises(UsageError, match="No such file"):
        read_course(tmp_path / "nothing")
