"""What a command says: its answer on stdout, in words or as one JSON object; everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.core.errors import UsageError

AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object on stdout.")]


def answer(document: dict[str, object], lines: list[str], *, as_json: bool) -> None:
    """Print `document` as one line of JSON, or `lines` for people."""
    for line in [json.dumps(document)] if as_json else lines:
        typer.echo(printable(line))


def say(line: str) -> None:
    """Print a line on stderr. Once nobody reads it any more, lines go nowhere: a log that was left stops no supply."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def open_missing() -> None:
    """Open stdin, stdout and stderr where we were started without: the next file opened would be in their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def make_new(directory: Path) -> None:
    """Make a directory for what a command keeps.

    Raises:
        UsageError: it is there already, or cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise UsageError(f"{directory} is there already", "give --keep a directory that is not there yet") from None
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error.strerror}", "give --keep another directory") from None


def printable(text: str) -> str:
    """`text` as one line without control characters: a peer's words must not steer a terminal."""
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
