"""`penstock watch`: answer stale closes, for ourselves or for somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.handover import SharedFile
from penstock.cli.log import Log, LogForm, log_to
from penstock.cli.monitor import MetricsAt, monitored
from penstock.cli.node import ChainId, ConfigFile, Confirmations, KeyName, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from penstock.cli.config import Config
    from penstock.core.channel import Domain
    from penstock.core.identity import Key
    from penstock.core.ports import Ledger
    from penstock.core.watcher import Evidence
    from penstock.ledgers.fees import Fees
    from penstock.node.monitor import Check
    from penstock.storage.sqlite import SqliteJournal


def watch(
    files: Annotated[
        list[Path] | None, typer.Argument(help="What was handed over; left out: our journal.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    url: Url = None,
    chain_id: ChainId = None,
    confirmations: Confirmations = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    shared_passphrase_file: SharedFile = None,
    metrics: MetricsAt = None,
    every: Annotated[
        float | None,
        typer.Option(help="Seconds between looks; left out: a twentieth of a challenge period.", show_default=False),
    ] = None,
    max_gwei: Annotated[
        int | None, typer.Option(help="The most to pay for a unit of gas, in gwei: 500.", show_default=False)
    ] = None,
    raise_after: Annotated[
        float, typer.Option(help="Seconds in no block after which a transaction offers more.")
    ] = 15.0,
    once: Annotated[bool, typer.Option("--once", help="End when every channel has been settled.")] = False,
    log: LogForm = "text",
    as_json: AsJson = False,
) -> None:
    """Follow channels on their ledger, answer where one is closed with an old voucher, and settle.

    Without FILES it watches over the channels that pay this node, beside `supply` or in its place. In the place of a
    hub it does more: what is proven in channels through which the hub pays, it claims in those that pay the hub, before
    their locks expire, and it holds payees to their releases. With FILES, which `penstock channel handover` wrote, it
    watches for others: the key only pays the gas. A file that is replaced is read again. It goes on through outages of
    the node and reorganisations of the chain, and raises its fee when no block takes a transaction. It runs until
    interrupted, or with --once until every channel has been settled. The exit code is 1 if anything was lost because no
    answer came in time.

    \b
    Example:
        penstock watch --url http://127.0.0.1:8545 --key pole
        penstock watch pole.handover --url http://127.0.0.1:8545 --key watcher --shared-passphrase-file shared
    """
    from penstock.cli.config import over
    from penstock.cli.node import open_key, read_journal, run, settings
    from penstock.core.errors import LedgerError, UsageError
    from penstock.ledgers.fees import GWEI, Fees

    told = log_to(log)
    read = settings(config, url, None, chain_id, key, passphrase_file, confirmations)
    if every is not None and not 0.1 <= every <= 86_400:
        raise UsageError(f"--every {every} is outside 0.1..86400", "leave it out, or give seconds")
    ledger = over(read.ledger, max_gwei=max_gwei)
    source = _handed_over(files, shared_passphrase_file, told) if files else read_journal()
    if not 0.5 <= raise_after <= 3_600:
        raise UsageError(f"--raise-after {raise_after} is outside 0.5..3600", "15 seconds suit most chains")
    fees = Fees(ledger.max_gwei * GWEI, raise_after)
    signer = open_key(read.key)
    if not read.ledger.confirmations:
        told("every block counts at once", advice="with --confirmations 12 a reorganisation undoes nothing unseen")
    document = run(lambda asked: _watch(read, signer, source, told, asked, every, once, fees, metrics), told)
    lines = [f"settled: {document['settled']}; still to be watched: {document['left']}"]
    answer(document, lines, as_json=as_json)
    if document["lost"]:
        raise LedgerError(f"{document['lost']:,} token units were lost: no answer came in time", "see the events")


Read = Callable[[], "dict[bytes, Evidence]"]


def _handed_over(files: list[Path], shared: Path | None, told: Log) -> Read:
    """What the files hold; one that changes is read again, and kept as it was where it has become rubbish."""
    from penstock.cli.passphrase import passphrase
    from penstock.core.errors import UsageError
    from penstock.node.handover import take_over

    secret = passphrase("the hand-over", shared)
    kept = {file: (_stamp(file), take_over(file, secret)) for file in files}

    def read() -> dict[bytes, Evidence]:
        for file in files:
            stamp = _stamp(file)
            if stamp not in (kept[file][0], None):
                try:
                    kept[file] = stamp, take_over(file, secret)
                except UsageError as error:
                    kept[file] = stamp, kept[file][1]
                    told("file not taken", file=str(file), error=error.line())
        best: dict[bytes, Evidence] = {}
        for one in (one for _, shown in kept.values() for one in shown):
            if one.params.id not in best or one.rank > best[one.params.id].rank:
                best[one.params.id] = one
        return best

    return read


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


async def _watch(
    config: Config,
    key: Key,
    source: Read | SqliteJournal,
    told: Log,
    asked: asyncio.Event,
    every: float | None,
    once: bool,
    fees: Fees,
    metrics: str | None,
) -> dict[str, Any]:
    from penstock.cli.config import need
    from penstock.ledgers.evm import EvmLedger
    from penstock.node.clock import now
    from penstock.node.stand_in import StandIn
    from penstock.node.tell import Counted
    from penstock.node.watch import Watch

    section = config.ledger
    url = need(section.url, "ledger", "url")

    async def connect(domain: Domain) -> Ledger:
        chain_id = section.chain_id or domain.chain_id
        return await EvmLedger.connect(url, domain.contract, chain_id, section.confirmations, fees)

    tell = Counted(told)
    if callable(source):
        watcher = Watch(key, source, connect, tell)
    else:
        stand_in = StandIn(source, key, tell)
        watcher = Watch(key, stand_in.shown, connect, tell, stand_in)

    def shown() -> tuple[Collector, Check]:
        from penstock.node.metrics import WatchMetrics
        from penstock.node.monitor import watch_check

        return WatchMetrics(watcher, now), watch_check(watcher, now, every)

    async with monitored(metrics, tell, shown):
        await watcher.run(asked, every, once)
    return {"settled": watcher.settled, "left": watcher.left, "lost": watcher.lost}
