"""A node's log on stderr: a line for each event, with its time (UTC), its level, and the session that it is about.

    text    2026-11-22T14:03:07Z info     accepted session=9f0c... consumer=0x51b2...
    json    {"time": "2026-11-22T14:03:07.119Z", "level": "info", "event": "accepted", "session": "9f0c...", ...}

What the libraries under us log comes through here, too, as the event `log`.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.output import printable, say
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

LogForm = Annotated[str, typer.Option("--log", help="What stderr gets: text, json, or none.")]

_FIRST = ("time", "level", "event", "session")


class Log:
    """Takes a node's events (`node.tell.Tell`) and writes them to stderr."""

    def __init__(self, form: str) -> None:
        """
        Raises:
            UsageError: `form` is none of text, json and none.
        """
        if form not in ("text", "json", "none"):
            raise UsageError(f"--log {form[:20]!r} is not a form of log", "text, json or none")
        self.form = form
        self._logger: FilteringBoundLogger | None = None

    def __call__(self, event: str, **facts: Any) -> None:
        from penstock.node.tell import level_of

        self.at(level_of(event), event, **facts)

    def at(self, level: str, event: str, **facts: Any) -> None:
        """Write an event at a level of its own."""
        if self.form == "none":
            return
        if self._logger is None:
            self._logger = _logger(self.form)
        getattr(self._logger, level)(event, **facts)

    def fault(self, error: BaseException | None, what: str) -> None:
        """A fault of ours that nobody awaits: one line, and the traceback where it is asked for."""
        named = f"{type(error).__name__}: {error}" if error is not None else what
        advice = "please report it; PENSTOCK_TRACE=1 adds the traceback"
        if self.form == "none":
            say(printable(f"penstock: internal error: {named}: {advice}"))
        self("internal error", error=named, advice=advice)
        if os.environ.get("PENSTOCK_TRACE") == "1" and error is not None:
            traceback.print_exception(error)


def log_to(form: str) -> Log:
    """A node's log, into which everything goes that is logged in this process from now on.

    Raises:
        UsageError: no such form.
    """
    log = Log(form)
    logging.getLogger().handlers = [_Library(log)]
    return log


class _Library(logging.Handler):
    """What a library logs, as an event of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._log.at(level, "log", logger=record.name, message=record.getMessage())


def _logger(form: str) -> FilteringBoundLogger:
    import structlog  # with what it imports a tenth of a second of CPU: not for who logs nothing

    render = _as_json if form == "json" else _as_text
    processors: list[Processor] = [structlog.processors.add_log_level, _facts, render]
    bound = structlog.make_filtering_bound_logger(logging.DEBUG)
    logger: FilteringBoundLogger = structlog.wrap_logger(_Stderr(), processors=processors, wrapper_class=bound)
    return logger


class _Stderr:
    """Where lines end up, whatever their level."""

    def msg(self, line: str) -> None:
        say(line)

    debug = info = warning = error = msg


def _facts(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Time, level, event and session first, then the rest."""
    at = datetime.now(UTC)
    facts["time"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {name: _plain(facts[name]) for name in dict.fromkeys((*_FIRST, *facts)) if name in facts}


def _plain(value: object) -> object:
    """Texts and numbers. Bytes do not get into a log: they may be what must stay secret."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else f"<{type(value).__name__}>"


def _as_json(_logger: object, _method: str, facts: Mapping[str, Any]) -> str:
    return json.dumps(facts)


def _as_text(_logger: object, _method: str, facts: Mapping[str, Any]) -> str:
    at, level, event, *rest = facts.items()
    words = " ".join(f"{name}={value}" for name, value in rest if value not in ("", None))
    return printable(f"{at[1][:19]}Z {level[1]:8} {event[1]} {words}".rstrip())
