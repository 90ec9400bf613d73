"""A key's passphrase: from a file or asked for at the terminal; never a flag, which every process could read."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.core.errors import UsageError

MAX_LENGTH = 1024  # bytes

PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the passphrase. Without it you are asked.", show_default=False),
]


def passphrase(name: str, file: Path | None, *, confirm: bool = False) -> str:
    """The passphrase of key `name`: the first line of `file`, or typed, twice where it is to be confirmed.

    Raises:
        UsageError: the file cannot be read or begins with an empty line, there is no terminal to ask at, nothing was
            typed, or the two differ.
    """
    if file is not None:
        return _from_file(file)
    if not sys.stdin.isatty():
        raise UsageError(f"no terminal to ask for the passphrase of key {name!r}", "give --passphrase-file")
    try:
        typed = getpass.getpass(f"passphrase for key {name}: ")
        if not typed:
            raise UsageError("the passphrase is empty", "type one, or give --passphrase-file")
        if confirm and getpass.getpass("the same again: ") != typed:
            raise UsageError("the two passphrases differ", "start again")
    except EOFError:
        raise UsageError("no passphrase was typed", "type one, or give --passphrase-file") from None
    return typed


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            line = file.readline(MAX_LENGTH + 2)
    except OSError as error:
        raise UsageError(f"cannot read passphrase file {path}: {error.strerror}", "check --passphrase-file") from None
    text = line.rstrip(b"\r\n")
    if not text or len(text) > MAX_LENGTH:
        raise UsageError(f"the first line of {path} is not 1 to {MAX_LENGTH} bytes", "put the passphrase there")
    return text.decode(errors="surrogateescape")
