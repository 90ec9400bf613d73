"""Real `penstock` processes that start in milliseconds: forked from one that has imported everything.

Each child runs the command line of its own arguments, in a process of its own with its own PENSTOCK_HOME; what it saves
is the two to four seconds in which Python imports libraries. It can be stopped, killed and waited for like any other.

`python -m tests.faults.nursery SOCKET` serves. A request is one datagram: JSON of (home, tape, arguments), with the
descriptors of stdout and stderr. A warden between the nursery and the child answers with the pid, waits for the end,
and says how it was: the return code, as subprocess has it. It kills the child when whoever asked is gone.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import penstock

STARTING = 60.0  # seconds for anything at all to happen
_REQUEST = 64 * 1024


class Nursery:
    """Starts children until it is closed."""

    def __init__(self, directory: Path) -> None:
        self._address = str(directory / "nursery")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._address)
        self._listener.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery", str(self._listener.fileno())],
            cwd=Path(__file__).parents[2],
            pass_fds=[self._listener.fileno()],
        )
        self._children: list[Child] = []

    def start(self, name: str, home: Path, *arguments: str, tape: Path | None = None) -> Child:
        """Run `penstock ARGUMENTS` with `home` as its PENSTOCK_HOME."""
        child = Child(name, self._address, home, arguments, tape)
        self._children.append(child)
        return child

    def quiet(self, but: Child | None = None) -> None:
        """Kill every child, `but` one."""
        for child in self._children:
            if child is not but:
                child.kill()
        self._children = [but] if but is not None else []

    def close(self) -> None:
        """Kill every child, and end."""
        self.quiet()
        self._process.kill()
        self._process.wait()
        self._listener.close()


class Child:
    """One process: its JSON events from stderr, with the time (monotonic, s) at which each was seen."""

    def __init__(self, name: str, address: str, home: Path, arguments: Sequence[str], tape: Path | None) -> None:
        self.name = name
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.errors: list[str] = []
        self.lines: list[str] = []
        self.code: int | None = None
        self._changed = threading.Condition()
        out, err = os.pipe(), os.pipe()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(address)
        request = json.dumps([str(home), str(tape or ""), list(arguments)]).encode()
        socket.send_fds(self._socket, [request], [out[1], err[1]])
        for end in (out[1], err[1]):
            os.close(end)
        self.started = time.monotonic()
        self.pid = int(self._socket.recv(64))
        works = (lambda: self._read(err[0], self._on_error), lambda: self._read(out[0], self.lines.append))
        self._threads = [threading.Thread(target=work, daemon=True) for work in (*works, self._reap)]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return self.code is None

    def send(self, number: int) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = STARTING) -> int:
        """Its exit code, once all that it said has been read; below 0 for the signal that ended it."""
        if not self.until(lambda: self.code is not None, timeout):
            raise AssertionError(f"the {self.name} does not end: {self.events[-3:]} {self.errors[-3:]}")
        for thread in self._threads[:2]:
            thread.join(STARTING)
        assert self.code is not None
        return self.code

    def until(self, what: Callable[[], bool], timeout: float = STARTING) -> bool:
        """Wait until `what` is so, which is asked whenever the process says something or ends. False: it never was."""
        end = time.monotonic() + timeout
        with self._changed:
            while not what():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.25))
        return True

    def said(self, event: str) -> list[dict[str, Any]]:
        """All events of that name so far."""
        return [facts for _, facts in self.events if facts["event"] == event]

    def event(self, event: str, timeout: float = STARTING) -> dict[str, Any] | None:
        """The first event of that name; None where the process ends, or time does, without it."""
        self.until(lambda: bool(self.said(event)) or not self.alive, timeout)
        found = self.said(event)
        return found[0] if found else None

    def answer(self) -> dict[str, Any]:
        """The JSON line that it printed last."""
        self.wait()
        answered: dict[str, Any] = json.loads(self.lines[-1])
        return answered

    def _on_error(self, line: str) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict) and "event" in found:
            self.events.append((time.monotonic(), found))
        else:
            self.errors.append(line)

    def _read(self, end: int, take: Callable[[str], None]) -> None:
        with os.fdopen(end, errors="replace") as stream:
            for line in stream:
                with self._changed:
                    take(line.rstrip("\n"))
                    self._changed.notify_all()

    def _reap(self) -> None:
        code = self._socket.recv(64)
        self._socket.close()
        with self._changed:
            self.code = int(code) if code else -signal.SIGKILL
            self._changed.notify_all()


def serve(listener: socket.socket) -> NoReturn:
    """Fork a child for each request, until killed."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are reaped by the kernel
    parent = os.getppid()
    while os.getppid() == parent:
        if not select.select([listener], [], [], 1.0)[0]:
            continue
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _ward(connection)
        connection.close()
    os._exit(0)


def _load() -> None:
    """Import all that any command may need, so that children find it there, and all of them the same."""
    for needed in ("eth.vm.forks.prague", "eth_account", "uvloop", "web3"):
        importlib.import_module(needed)
    for found in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    gc.freeze()


def _ward(connection: socket.socket) -> NoReturn:
    """Start one child, see to its end, and report."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, descriptors, _, _ = socket.recv_fds(connection, _REQUEST, 2)
    home, tape, arguments = json.loads(request)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _be(home, tape, arguments, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.send(b"%d" % pid)
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([connection.fileno(), ended], [], [])
    if ended not in ready:  # whoever asked is gone
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _be(home: str, tape: str, arguments: list[str], descriptors: list[int]) -> NoReturn:
    """Be the command."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((null, *descriptors)):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    os.environ["PENSTOCK_HOME"] = home
    sys.argv = ["penstock", *arguments]
    code = 1
    try:
        if tape:
            from .tape import record

            record(tape)
        from penstock.cli.main import run

        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
