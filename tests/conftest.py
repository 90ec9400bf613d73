"""Which chain the tests of contracts and ledgers stand on, and what fell as soon as it falls."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chain",
        choices=("devnet", "anvil"),
        default="devnet",
        help="the chain under the tests of contracts, ledgers and hubs (`make integration` installs anvil)",
    )


class FailuresAtOnce:
    """Names a test when it falls: a long run that is stopped halfway has then still said what fell, and how."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            what = crash.message.splitlines()[0][:300] if crash is not None else str(report.longrepr)[-300:]
            self.terminal.ensure_newline()
            self.terminal.write_line(f"FELL in {report.duration:.0f} s: {report.nodeid} ({report.when}): {what}")


def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(terminal, pytest.TerminalReporter) and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(FailuresAtOnce(terminal))
