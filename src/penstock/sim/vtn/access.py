"""Who may ask what: clients with secrets, tokens for a time, and the scopes of the two roles.

The operator's business logic (BL) reads everything and writes programs, events and targets; a site (VEN) reads what is
its own, or aimed at it, and writes reports (Definition, "Object Privacy"; the description's scopes).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

MAX_TOKENS = 10_000  # the oldest go first


class Role(StrEnum):
    """What a client is."""

    BL = "BL"
    VEN = "VEN"


class Client(NamedTuple):
    """A client: its id, its secret, its role."""

    id: str
    secret: str
    role: Role


SCOPES = {
    Role.BL: {"read_all", "read_bl", "write_programs", "write_events", "write_subscriptions", "write_vens"},
    Role.VEN: {"read_targets", "read_ven_objects", "write_reports", "write_subscriptions", "write_vens"},
}


def may(role: Role, scope: str | None) -> bool:
    """Whether a role has a scope. Whoever may read all may read what is aimed at others, or theirs."""
    held = SCOPES[role]
    return scope is None or scope in held or ("read_all" in held and scope in ("read_targets", "read_ven_objects"))


class Tokens:
    """Access tokens by client credentials (RFC 6749, 4.4)."""

    def __init__(self, clients: Mapping[str, Client], life: int, now: Callable[[], float]) -> None:
        """`life` is how long a token is good (s), by the clock `now`."""
        self.life = life
        self._clients, self._now = clients, now
        self._tokens: dict[str, tuple[Client, float]] = {}

    def issue(self, client: str, secret: str) -> str | None:
        """A token for a client; None where the secret is not its own."""
        known = self._clients.get(client)
        given = secret.encode(errors="surrogatepass")
        if known is None or not hmac.compare_digest(known.secret.encode(), given):
            return None
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (known, self._now() + self.life)
        while len(self._tokens) > MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        return token

    def holder(self, header: str | None) -> Client | None:
        """Whose token an Authorization header carries; None where it is nobody's, or was."""
        scheme, _, token = (header or "").partition(" ")
        client, until = self._tokens.get(token.strip(), (None, 0.0))
        return client if scheme.lower() == "bearer" and self._now() < until else None

    def revoke(self) -> None:
        """No token that was issued is good any more."""
        self._tokens.clear()
