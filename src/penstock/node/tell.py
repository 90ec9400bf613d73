"""How a node says what happens, for logs and views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tell = Callable[..., Any]
"""`tell("event", fact=value, ...)`; the facts fit JSON."""
