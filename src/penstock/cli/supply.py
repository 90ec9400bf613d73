"""`penstock supply`: sell a metered medium at one pole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.devices import DATA, need_supply, supplied
from penstock.cli.grid import operator_of, tied
from penstock.cli.log import Log, LogForm, log_to
from penstock.cli.monitor import MetricsAt, monitored
from penstock.cli.node import ChainId, ConfigFile, Confirmations, Contract, Escrow, KeyName, Patience, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile
from penstock.cli.progress import standing
from penstock.cli.rails import Taken

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from penstock.cli.config import Config, SupplySection
    from penstock.cli.pricing import Pricing
    from penstock.cli.rails import Tills
    from penstock.core import session
    from penstock.core.identity import Key
    from penstock.core.ports import Mined
    from penstock.core.session import Session
    from penstock.node.monitor import Check
    from penstock.node.supplier import Pole
    from penstock.storage.sqlite import SqliteJournal
    from penstock.transports.tls import Server

LINGER = 15.0  # seconds that a consumer gets to ask for the channel's close, with --once
REPORT = 0.25  # seconds between two progress events
SETTLING = 20.0  # seconds that the ledger gets for the last settlements when we are asked to end
RETRY = 15.0  # seconds until an unreachable ledger is tried again


def supply(
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    escrow: Escrow = None,
    rail: Taken = None,
    chain_id: ChainId = None,
    confirmations: Confirmations = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to sell at.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="What the pole is called.", show_default=False)] = None,
    medium: Annotated[
        str | None, typer.Option(help="What is sold: electricity, water, ...", show_default=False)
    ] = None,
    price: Annotated[
        str | None, typer.Option(help="Whole tokens per kWh, m3, ... such as 0.40.", show_default=False)
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(help="FILE or URL of prices over time, in place of --price; read again.", show_default=False),
    ] = None,
    prices_signer: Annotated[
        str | None, typer.Option(help="Take price series only if this address signed them.", show_default=False)
    ] = None,
    tick: Annotated[
        str | None, typer.Option(help="The smallest payment, in whole tokens: 0.001.", show_default=False)
    ] = None,
    package: Annotated[
        int | None, typer.Option(help="Units released on no more than a promise.", show_default=False)
    ] = None,
    credit_ticks: Annotated[int | None, typer.Option(help="Most ticks ever owed.", show_default=False)] = None,
    mode: Annotated[str | None, typer.Option(help="pay-after or pay-before.", show_default=False)] = None,
    line: Annotated[
        str | None, typer.Option(help="File of the simulated line that the pole feeds.", show_default=False)
    ] = None,
    power_w: Annotated[int | None, typer.Option(help="Power of the line, in watts.", show_default=False)] = None,
    speed: Annotated[
        float | None, typer.Option(help="Times faster than real time; left out: at once.", show_default=False)
    ] = None,
    sign: Annotated[
        str | None,
        typer.Option(help="Let the line's meter sign its readings (OCMF); FILE keeps its key.", show_default=False),
    ] = None,
    feed_price: Annotated[
        str | None, typer.Option(help="Take back what consumers feed in, for so much a kWh.", show_default=False)
    ] = None,
    feed_prices: Annotated[
        str | None, typer.Option(help="FILE or URL of its prices over time.", show_default=False)
    ] = None,
    feed_limit: Annotated[
        str | None, typer.Option(help="Most taken back in a session, in kWh; 100 if left out.", show_default=False)
    ] = None,
    feed_tick: Annotated[
        str | None, typer.Option(help="The smallest payment for it; --tick if left out.", show_default=False)
    ] = None,
    feed_credit: Annotated[
        int | None, typer.Option(help="Most ticks ever owed for it; --credit-ticks if left out.", show_default=False)
    ] = None,
    feed_power: Annotated[
        int | None,
        typer.Option(help="Power of the line that way, in watts; --power-w if left out.", show_default=False),
    ] = None,
    feed_stake: Annotated[
        str | None,
        typer.Option(
            help="Put up to so many tokens into each channel that pays both ways, as its consumer does.",
            show_default=False,
        ),
    ] = None,
    forward: Annotated[
        str | None, typer.Option(help="HOST:PORT that data is forwarded to.", show_default=False)
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="URL of the grid operator's server, an OpenADR 3.1 VTN.", show_default=False)
    ] = None,
    grid_key: Annotated[
        str | None,
        typer.Option(help="FILE of our credentials there: the client's id, and its secret below.", show_default=False),
    ] = None,
    site_limit: Annotated[
        int | None, typer.Option(help="Most that is ever drawn here, in watts.", show_default=False)
    ] = None,
    metrics: MetricsAt = None,
    patience: Patience = 10.0,
    once: Annotated[bool, typer.Option("--once", help="End after one session, once it is settled.")] = False,
    log: LogForm = "text",
    as_json: AsJson = False,
) -> None:
    """Sell a metered medium at one pole, one session at a time, until interrupted.

    Consumers need no account: each brings a payment channel to this key, and pays tick by tick while it draws. The
    valve closes as soon as more than the credit is owed. Channels that consumers sign off are closed on the ledger.
    A session that a crash broke off is taken up again. SIGTERM or Ctrl-C ends a running session in order, with a signed
    receipt; a second one does not wait for it.

    Prices may move: --prices names a JSON list of {"start", "end", "value"} (docs/prices.md). Each offer follows the
    newest series, a running session keeps what it signed, and where the series ends nothing is sold. A price of 0 or
    below is paid to consumers that can be paid. With --feed-price or --feed-prices the flow may turn round; what is
    fed in is paid from what the consumer paid before, and from --feed-stake.

    \b
    Example:
        penstock supply --url http://127.0.0.1:8545 --contract 0x... --key pole \\
            --listen 127.0.0.1:7411 --price 0.40 --tick 0.001 --line cable --power-w 11000
        penstock supply --url http://127.0.0.1:8545 --contract 0x... --key relay \\
            --medium data --price 0.10 --forward 127.0.0.1:8080
        penstock supply --url http://127.0.0.1:8545 --contract 0x... --key pole --tick 0.001 --line cable \\
            --prices today.json --feed-price 0.30 --feed-stake 5
        penstock supply --config pole.toml --grid https://vtn.example/openadr3 --grid-key grid.key --site-limit 22000
    """
    from penstock.cli.config import over
    from penstock.cli.node import patient, run, settings

    told = log_to(log)
    read = settings(config, url, contract, chain_id, key, passphrase_file, confirmations, escrow)
    section = over(
        read.supply,
        listen=listen,
        name=name,
        medium=medium,
        price=price,
        prices=prices,
        prices_signer=prices_signer,
        feed_price=feed_price,
        feed_prices=feed_prices,
        feed_limit=feed_limit,
        feed_tick=feed_tick,
        feed_credit=feed_credit,
        feed_power=feed_power,
        feed_stake=feed_stake,
        tick=tick,
        package=package,
        credit_ticks=credit_ticks,
        mode=mode,
        line=line,
        power_w=power_w,
        speed=speed,
        forward=forward,
        sign=sign,
        metrics=metrics,
        grid=grid,
        grid_key=grid_key,
        site_limit=site_limit,
    )
    waits = patient(patience)
    document = run(lambda asked: _supply(read, section, rail or [], told, asked, once, waits), told)
    answer(document, [], as_json=True) if as_json else None


async def _supply(
    config: Config,
    section: SupplySection,
    rails: list[str],
    told: Log,
    asked: asyncio.Event,
    once: bool,
    waits: session.Patience,
) -> dict[str, Any]:
    from penstock.cli.config import endpoint, need
    from penstock.cli.goods import need_prices, step
    from penstock.cli.node import journal_open, open_key
    from penstock.cli.pricing import priced
    from penstock.cli.rails import taken, tills_at
    from penstock.core.units import Quantity

    address = endpoint(section.listen)
    need_supply(section)
    need_prices(section)
    operator = operator_of(section, config.grid)
    if section.medium != DATA:
        need(section.tick, "supply", "tick")
    key = open_key(config.key)
    async with (
        tills_at(config.ledger, taken(config.ledger, rails)) as tills,
        priced(section, tills.token, told) as pricing,
        supplied(section, Quantity(step(pricing.goods())), told) as pole,
        journal_open() as journal,
    ):
        shop = Shop(key, journal, tills, pole, section, pricing, told, waits)
        async with tied(shop.supplier, section, config.grid, operator, tills.token):
            return await shop.trade(address, asked, once)


class Shop:
    """One pole that is open for business, with all that it needs."""

    def __init__(
        self,
        key: Key,
        journal: SqliteJournal,
        tills: Tills,
        pole: Pole,
        section: SupplySection,
        pricing: Pricing,
        told: Log,
        waits: session.Patience,
    ) -> None:
        from penstock.cli.money import sum_of
        from penstock.node.clock import now
        from penstock.node.site import Site
        from penstock.node.supplier import Supplier
        from penstock.node.tell import Counted

        self.sessions: list[dict[str, Any]] = []
        self.mined: list[Mined] = []
        self._tills, self._key, self._journal = tills, key, journal
        self._tell = Counted(told)
        self._progress = told.form == "json"
        stake = sum_of(section.feed_stake, tills.token, "--feed-stake") if section.feed_stake else 0
        self._site = Site(key, journal, now, self._tell, tills.make(key, journal, now, self._tell, stake))
        self.supplier = Supplier(self._site, pole, pricing.goods(), waits, self._ended)
        self._section, self._pricing = section, pricing

    async def trade(self, address: tuple[str, int], asked: asyncio.Event, once: bool) -> dict[str, Any]:
        """Sell until asked to end, or one session; then settle what was signed off and report."""
        before = await self._tills.tokens(self._key.address)
        await self._sell(address, asked, once)
        if self._site.fault is not None:
            raise self._site.fault
        after = await self._settle_up(asked)
        return {
            "sessions": self.sessions,
            "transactions": [{"what": one.what, "hash": _hex(one.hash), "gas": one.gas} for one in self.mined],
            "balance": {"before": before, "after": after},
        }

    async def _sell(self, address: tuple[str, int], asked: asyncio.Event, once: bool) -> None:
        from penstock.transports.tls import serve

        await self.supplier.restore()
        server = await serve(*address, self._key, self.supplier.on_link, on_full=self.supplier.visits.make_room)
        works = (self._report(), self._settle(), self._pricing.follow(self.supplier))
        beside = [asyncio.ensure_future(work) for work in works]
        try:
            async with monitored(self._section.metrics, self._tell, lambda: self._shown(server)):
                at = f"{address[0]}:{server.port}"
                self._tell(
                    "listening",
                    address=at,
                    supplier=_hex(self._key.address),
                    price=self._section.price or self._section.prices,
                )
                await _until(asked, self._site.failed, self.sessions if once else None)
                if once and self.sessions and self.sessions[0]["complete"]:
                    await self._signed_off(asked)
        finally:
            await self._drain(server, beside)

    async def _drain(self, server: Server, beside: list[asyncio.Task[None]]) -> None:
        """End what runs, in order. Cancelled, it does not wait for receipts: a session is taken up again then."""
        try:
            await self.supplier.close()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await server.close()
            await self._site.close()

    async def _settle_up(self, asked: asyncio.Event) -> int | None:
        """Settle what is signed off, and return what we have then (token units).

        Where we were asked to end, what the ledger does not take soon waits in the journal for the next start.

        Raises:
            LedgerError: the ledger does not take it, and nobody asked us to end.
        """
        from penstock.core.errors import LedgerError, LedgerUnreachable

        try:
            async with asyncio.timeout(SETTLING if asked.is_set() else None):
                self.mined += await self._site.settle()
                return await self._tills.tokens(self._key.address)
        except (LedgerError, TimeoutError) as failed:
            if not asked.is_set():
                raise
            error = failed if isinstance(failed, LedgerError) else LedgerUnreachable(f"no answer within {SETTLING:g} s")
            self._tell("not settled", error=error.line())
            return None

    def _shown(self, server: Server) -> tuple[Collector, Check]:
        """What the monitor shows."""
        from penstock.cli.config import home
        from penstock.node.metrics import SiteMetrics
        from penstock.node.monitor import site_check

        site, journal = self._site, home().journal
        return SiteMetrics(site, server, self._journal.commits, journal), site_check(site, journal)

    def _ended(self, session: Session) -> None:
        self.sessions.append(outcome(session))

    async def _signed_off(self, asked: asyncio.Event) -> None:
        """Wait for the consumer to sign its channel off, to leave without, or to come back from a crash."""
        over_hubs = self.sessions[0]["rail"] == "hops"
        for _ in range(int(LINGER / 0.05)):
            left = self.supplier.parted and not self.supplier.visits
            done = not self._site.folding if over_hubs else left
            if self._site.unsettled or asked.is_set() or done:
                return
            await asyncio.sleep(0.05)

    async def _settle(self) -> None:
        """Send signed closes to the ledger as they come; try again later where it does not answer."""
        from penstock.core.errors import JournalError, LedgerError, OutOfFunds

        while True:
            await asyncio.sleep(0.2)
            if not self._site.unsettled:
                continue
            try:
                self.mined += await self._site.settle()
            except (LedgerError, OutOfFunds) as error:
                self._tell("not settled", error=error.line())
                await asyncio.sleep(RETRY)
            except JournalError as error:
                self._site.fail(error)
                return

    async def _report(self) -> None:
        """While a session runs, say how it stands, for views and logs of programs."""
        told: dict[str, Any] = {}
        while self._progress:
            await asyncio.sleep(REPORT)
            if self.supplier.shell is not None:
                session = self.supplier.shell.session
                stands = standing(session)
                if stands == told:
                    continue
                told = stands
                self._tell("progress", **stands)


async def _until(asked: asyncio.Event, failed: asyncio.Event, sessions: list[dict[str, Any]] | None) -> None:
    """Wait to be asked to end, for our own failure, or until there is a session in the list, if one is given."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (asked, failed)]
    try:
        while not sessions:
            pause = None if sessions is None else 0.05
            done, _ = await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
    finally:
        for task in waiting:
            task.cancel()


def outcome(session: Session) -> dict[str, Any]:
    """A session's end as JSON: totals in the medium's unit, sums in token units, both signatures of the receipt."""
    receipt = session.receipt
    return {
        "session": _hex(session.digest),
        "rail": session.terms.rail,
        "role": str(session.role),
        "reason": str(session.reason) if session.reason else None,
        "complete": session.complete,
        "total": session.meter.total,
        "export": session.meter.export,
        "paid": receipt.paid if receipt else session.paid,
        "repaid": receipt.repaid if receipt else session.repaid,
        "unpaid": receipt.unpaid if receipt else session.control.exposure,
        "ticks": session.ticks,
        "credit_limit": session.terms.offer.credit_limit,
        "max_exposure": session.control.worst,
        "fault": session.fault,
        "receipt": None
        if receipt is None
        else {
            "terms": _hex(receipt.terms),
            "supplier_total": receipt.supplier_total,
            "consumer_total": receipt.consumer_total,
            "paid": receipt.paid,
            "unpaid": receipt.unpaid,
            "ticks": receipt.ticks,
            "reason": receipt.reason,
            "at": receipt.at,
            "supplier_export": receipt.supplier_export,
            "consumer_export": receipt.consumer_export,
            "repaid": receipt.repaid,
            "consumer_signature": _hex(session.row.consumer_signature),
            "supplier_signature": _hex(session.row.supplier_signature),
        },
    }


def _hex(value: bytes) -> str:
    from penstock.core.identity import to_hex

    return to_hex(value)
