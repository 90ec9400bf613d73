"""The `penstock` command: its frame, and what becomes of errors.

    exit code   0     done
                1     it failed: the peer, the ledger or a device
                2     a flag, a file or a configuration value is wrong; nothing was started
                130   interrupted
                141   whoever read our stdout went away

An error is one line on stderr, `penstock: <what is wrong>: <what to do>`. With `--json`, stdout carries one JSON object
in every case; an error is `{"error": {"kind", "message", "advice"}}`. Logs go to stderr. PENSTOCK_TRACE=1 adds
tracebacks.

Each command is in a file of its own, which imports what is heavy only when it runs: `--help` answers at once.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

import penstock
from penstock.cli import (
    channel,
    compare,
    consume,
    demo,
    devnet,
    escrow,
    hub,
    journal,
    key,
    meter,
    prices,
    replay,
    simulate,
    supply,
    vtn,
    watch,
)
from penstock.cli.output import open_missing, printable, say
from penstock.core.errors import LocalError, PenstockError, UsageError

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(key.app, name="key")
app.add_typer(channel.app, name="channel")
app.add_typer(escrow.app, name="escrow")
app.add_typer(journal.app, name="journal")
app.add_typer(meter.app, name="meter")
app.add_typer(prices.app, name="prices")
app.command()(devnet.devnet)
app.command()(supply.supply)
app.command()(consume.consume)
app.command()(hub.hub)
app.command()(watch.watch)
app.command()(vtn.vtn)
app.command()(demo.demo)
app.command()(replay.replay)
app.command()(compare.compare)
app.command("sim")(simulate.simulate)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"penstock {penstock.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def penstock_(
    context: typer.Context,
    version: Annotated[  # its callback acts
        bool, typer.Option("--version", help="Say which version this is.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Stream electricity, water, data or time against tokens, package by package.

    Two machines that have never met find each other, agree a price, stream and settle; neither ever owes the other
    more than one small package.

    \b
    Example:
        penstock key new pole
        penstock key list

    \b
    Keys, journal and configuration are in $PENSTOCK_HOME, or ~/.penstock.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run() -> NoReturn:
    """The console entry: run the command line and exit with its code."""
    open_missing()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="penstock: %(levelname)s: %(message)s")
    sys.exit(_code(sys.argv[1:]))


def _code(arguments: list[str]) -> int:
    try:
        code = _command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush stdout once more while it exits, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _command(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    command = typer.main.get_command(app)
    try:
        with command.make_context("penstock", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:
        return _failed(error, 130, as_json)
    except typer.TyperException as error:  # what typer says of the command line
        context_ = getattr(error, "ctx", None)
        path = context_.command_path if context_ is not None else "penstock"
        message = error.format_message().rstrip(".")
        return _failed(UsageError(message[:1].lower() + message[1:], f"see {path} --help"), 2, as_json)
    except UsageError as error:
        return _failed(error, 2, as_json)
    except PenstockError as error:
        return _failed(error, 1, as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        return _failed(_scarce(error) or error, 1, as_json)
    return 0


_SCARCE = {
    errno.EMFILE: ("too many open files", "allow this process more of them: ulimit -n 4096"),
    errno.ENFILE: ("too many open files on this machine", "end what holds them"),
    errno.ENOSPC: ("the disk is full", "free some space, then start again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then start again"),
}


def _scarce(error: Exception) -> LocalError | None:
    """What the machine has run out of, where that is the error: it is no fault of ours, and nothing to report."""
    if not isinstance(error, OSError) or error.errno not in _SCARCE:
        return None
    what, advice = _SCARCE[error.errno]
    return LocalError(f"{what} ({error.filename})" if error.filename else what, advice)


def _failed(error: BaseException, code: int, as_json: bool) -> int:
    """Say what went wrong, in one line on stderr and, where asked, as JSON on stdout."""
    if os.environ.get("PENSTOCK_TRACE") == "1":
        traceback.print_exception(error)
    if isinstance(error, PenstockError):
        kind, message, advice = type(error).__name__, str(error), error.advice
    elif code == 130:
        kind, message, advice = "Interrupted", "interrupted", ""
    else:
        kind, message = "InternalError", f"internal error: {type(error).__name__}: {error}"
        advice = "please report it; rerun with PENSTOCK_TRACE=1 for the traceback"
    message, advice = printable(message), printable(advice)
    say(f"penstock: {message}: {advice}" if advice else f"penstock: {message}")
    if as_json:
        print(json.dumps({"error": {"kind": kind, "message": message, "advice": advice}}))
    return code
