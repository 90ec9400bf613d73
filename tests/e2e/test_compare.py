"""`penstock compare`, the command itself, where it is used wrongly. `make integration` lets it run."""

from __future__ import annotations

import pytest

from .world import World


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--session", "S9999"), "session"),
        (("--gas-price", "-1"), "--gas-price"),
        (("--token-rate", "nan"), "--token-rate"),
        (("--html", "/no/such/directory/page.html"), "cannot write"),
    ],
)
def test_a_wrong_flag_is_said_before_anything_runs(world: World, flags: tuple[str, str], word: str) -> None:
    done = world.command("car", "compare", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert word in line


def test_a_page_that_cannot_be_made_leaves_no_file(world: World) -> None:
    page = world.directory / "page.html"
    assert world.command("car", "compare", "--session", "S9999", "--html", str(page)).returncode == 2
    assert not page.exists()
