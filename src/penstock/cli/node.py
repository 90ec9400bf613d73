"""What `supply`, `consume` and `channel` share: the node's home, key, journal and ledger, and its events on stderr."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from penstock.cli.config import Config, KeySection, LedgerSection, home, load, need, over
from penstock.cli.log import Log
from penstock.cli.passphrase import passphrase
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.core import session
    from penstock.core.identity import Key
    from penstock.core.ports import EscrowLedger, Ledger, TokenFacts
    from penstock.ledgers.fees import Fees
    from penstock.node.book import TokenRow
    from penstock.storage.sqlite import SqliteJournal

_T = TypeVar("_T")
_L = TypeVar("_L", "Ledger", "EscrowLedger")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; flags go over it.", show_default=False)]
Url = Annotated[str | None, typer.Option(help="JSON-RPC address of the ledger's node.", show_default=False)]
Contract = Annotated[str | None, typer.Option(help="Address of the channel contract.", show_default=False)]
Escrow = Annotated[str | None, typer.Option("--escrow", help="Address of the escrow contract.", show_default=False)]
ChainId = Annotated[int | None, typer.Option(help="Refuse any other chain than this.", show_default=False)]
Confirmations = Annotated[
    int | None, typer.Option(help="Blocks above a deposit that make it count.", show_default=False)
]
KeyName = Annotated[str | None, typer.Option("--key", help="Name of the key that signs.", show_default=False)]
Patience = Annotated[
    float, typer.Option(help="Seconds to wait for the other side's next move; twelve times that for its return.")
]


def patient(seconds: float) -> session.Patience:
    """The patience of `seconds` for a move.

    Raises:
        UsageError: no sensible time.
    """
    from penstock.core.session import Patience
    from penstock.core.units import Duration

    if not 0.5 <= seconds <= 86_400:
        raise UsageError(f"--patience {seconds} is outside 0.5..86400", "10 seconds suit most links")
    return Patience(Duration(int(seconds * 1_000)), Duration(int(seconds * 12_000)))


def settings(
    config: Path | None,
    url: str | None,
    contract: str | None,
    chain_id: int | None,
    key: str | None,
    file: Path | None,
    confirmations: int | None = None,
    escrow: str | None = None,
) -> Config:
    """The configuration with the common flags over it.

    Raises:
        UsageError: a file or a flag is wrong.
    """
    import msgspec

    read = load(config)
    return msgspec.structs.replace(
        read,
        ledger=over(
            read.ledger, url=url, contract=contract, escrow=escrow, chain_id=chain_id, confirmations=confirmations
        ),
        key=over(read.key, name=key, passphrase_file=str(file) if file else None),
    )


def open_key(section: KeySection) -> Key:
    """The node's key, decrypted.

    Raises:
        UsageError: no key is named, there is none of that name, or the passphrase is wrong.
    """
    from penstock.storage import keystore

    name = need(section.name, "key", "name") if section.name else _only_key()
    file = Path(section.passphrase_file) if section.passphrase_file else None
    return keystore.load(home().keys, name, passphrase(name, file))


def _only_key() -> str:
    from penstock.storage import keystore

    names = [name for name, _, _ in keystore.listing(home().keys)]
    if len(names) == 1:
        return names[0]
    if names:
        raise UsageError(f"there are {len(names)} keys", f"choose one: --key {names[0]}")
    raise UsageError(f"there is no key in {home().keys}", "make one: penstock key new NAME")


@asynccontextmanager
async def journal_open() -> AsyncIterator[SqliteJournal]:
    """The node's journal, for writing; made where there is none.

    Raises:
        JournalError: another process has it, or it cannot be used.
    """
    from penstock.storage.sqlite import SqliteJournal

    where = home()
    try:
        where.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make {where.path}: {error.strerror}", "set PENSTOCK_HOME to a directory of yours"
        ) from None
    journal = SqliteJournal(where.journal)
    try:
        yield journal
    finally:
        await journal.close()


def read_journal() -> SqliteJournal:
    """The node's journal for reading, beside whoever writes it.

    Raises:
        UsageError: there is none yet.
    """
    from penstock.storage.sqlite import SqliteJournal

    if not home().journal.exists():
        raise UsageError(f"there is no journal in {home().path}", "it is made by the first `supply` or `consume`")
    return SqliteJournal.open_readonly(home().journal)


class _Late(ABC, Generic[_L]):
    """A configured ledger, connected to when it is first called for: `await late()`. Disconnect it when done."""

    def __init__(self, section: LedgerSection, key: str) -> None:
        """The contract is the one that the section names under `key`.

        Raises:
            UsageError: none is named.
        """
        from penstock.core.identity import parse_address

        self.contract = parse_address(need(getattr(section, key), "ledger", key))
        self._section = section
        self._ledger: _L | None = None

    async def __call__(self) -> _L:
        """Raises:
        UsageError: no node is named. LedgerError: it does not answer, or is another one.
        """
        from penstock.ledgers.fees import GWEI, Fees

        if self._ledger is None:
            section = self._section
            url, fees = need(section.url, "ledger", "url"), Fees(section.max_gwei * GWEI)
            self._ledger = await self._connect(url, fees)
        return self._ledger

    @abstractmethod
    async def _connect(self, url: str, fees: Fees) -> _L: ...

    async def token(self, journal: SqliteJournal) -> TokenRow:
        """How sums are written here: as the journal knows, or else as the ledger says, and the journal then knows, too.

        Raises:
            LedgerError: it has to be asked, and does not answer.
        """
        from penstock.node import book
        from penstock.node.tasks import durable

        known = book.token_of(journal, self.contract, self._section.chain_id)
        if known is None:
            ledger = await self()
            known = book.TokenRow(ledger.domain, await ledger.token())
            await durable(journal, known.rows())
        return known

    async def disconnect(self) -> None:
        """Drop the connections, if there are any."""
        if self._ledger is not None:
            await self._ledger.disconnect()


class LateLedger(_Late["Ledger"]):
    """The ledger of channels: `[ledger] contract`."""

    def __init__(self, section: LedgerSection) -> None:
        super().__init__(section, "contract")

    async def _connect(self, url: str, fees: Fees) -> Ledger:
        from penstock.ledgers.evm import EvmLedger

        section = self._section
        return await EvmLedger.connect(url, self.contract, section.chain_id, section.confirmations, fees)


class LateEscrows(_Late["EscrowLedger"]):
    """The ledger of escrows: `[ledger] escrow`."""

    def __init__(self, section: LedgerSection) -> None:
        super().__init__(section, "escrow")

    async def _connect(self, url: str, fees: Fees) -> EscrowLedger:
        from penstock.ledgers.escrow import EvmEscrows

        section = self._section
        return await EvmEscrows.connect(url, self.contract, section.chain_id, section.confirmations, fees)

    async def token(self, journal: SqliteJournal) -> TokenRow:
        import msgspec

        from penstock.core.escrow import EscrowDomain

        known = await super().token(journal)
        at = known.domain
        return msgspec.structs.replace(known, domain=EscrowDomain(at.chain_id, at.contract, at.token))


@asynccontextmanager
async def ledger_at(section: LedgerSection) -> AsyncIterator[tuple[Ledger, TokenFacts]]:
    """The ledger, and how its token's sums are written.

    Raises:
        UsageError: no node or contract is named. LedgerError: it does not answer, or is another one.
    """
    late = LateLedger(section)
    try:
        ledger = await late()
        yield ledger, await ledger.token()
    finally:
        await late.disconnect()


def run(work: Callable[[asyncio.Event], Coroutine[Any, Any, _T]], log: Log | None = None) -> _T:
    """Run a command's coroutine. Its event is set by the first Ctrl-C, SIGTERM or SIGHUP; the second one ends it.

    Faults of ours that nobody awaits go to the log.

    Raises:
        KeyboardInterrupt: it was ended.
    """
    import uvloop

    fault = (log or Log("text")).fault

    async def main() -> _T:
        asked = asyncio.Event()
        doing = asyncio.ensure_future(work(asked))

        def stop() -> None:
            if asked.is_set():
                doing.cancel()
            asked.set()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: fault(context.get("exception"), str(context.get("message"))))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                loop.add_signal_handler(number, stop)
        return await doing

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
