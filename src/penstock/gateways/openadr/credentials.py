"""What a site proves itself with to the grid's server: an id and a secret, from a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from penstock.core.errors import UsageError

_LONGEST = 4096  # bytes of the id, and of the secret: as many as the description allows


class Credentials(NamedTuple):
    """OAuth 2.0 client credentials. Its `repr` does not tell the secret."""

    client: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials({self.client!r})"


def load(path: Path) -> Credentials:
    """The credentials in a file: the client's id in its first line, the secret in the second.

    Raises:
        UsageError: it cannot be read, others could read it, or it is no such file.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            content = file.read(2 * _LONGEST + 4)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}", "check the path") from None
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
        raise UsageError(f"{path} can be read by others", f"run: chmod 600 {path}")
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        lines = []
    if len(lines) < 2 or not all(0 < len(line) <= _LONGEST and line.isprintable() for line in lines[:2]):
        advice = "put the client's id in its first line, and the secret in the second"
        raise UsageError(f"{path} holds no credentials", advice)
    return Credentials(lines[0], lines[1])
