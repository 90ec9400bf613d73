"""What must be so once all is healed and time has passed: all is settled, and each honest party has what it is owed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.messages import Reason
from penstock.core.session import SessionRow, State
from penstock.node import book
from penstock.sim.reckoning import limits, sums
from penstock.sim.scenario import PROOF

if TYPE_CHECKING:
    from penstock.sim.actors import CarActor
    from penstock.sim.checks import Checks

ACCUSING = (Reason.METERS_DISAGREE, Reason.PEER_CHEATED, Reason.DEVICE_FAILED)


def audit_end(checks: Checks) -> None:
    """Look at the chain and at the disks of a world whose time is over."""
    _exits(checks)
    for car in checks.world.cars:
        if not (car.cheat or checks.world.site.cheat):
            _business(checks, car)
            _receipts(checks, car)
            _sums(checks, car)


def _exits(checks: Checks) -> None:
    """Every channel of an honest party has ended, and paid what its payee held."""
    world = checks.world
    accounts, site = world.chain.head.accounts, world.site
    cars = {car.key.address: car for car in world.cars}
    for channel, state in accounts.channels.items():
        name, car = channel.hex()[:8], cars[accounts.params[channel].opener]
        known = book.channel_of(site.disk, channel) is not None
        if state.status != "ended":
            if (known and not site.cheat) or not car.cheat:
                checks.fail(f"exit: channel {name} of {car.name} is {state.status} at the end")
            continue
        gain = state.paid[1] - state.deposits[1]  # of the site's
        held, back = checks.secured(site.disk, channel), checks.secured(car.disk, channel)
        promised, promised_back = (side.promises.most.get(channel, 0) for side in (checks.cars, checks.site))
        if not site.cheat and gain < held - (promised_back if car.cheat else back):
            checks.fail(f"payable: channel {name} of {car.name} paid {gain}, its payee held {held} less {back}")
        if not car.cheat and gain > promised - back:
            checks.fail(f"payable: channel {name} of {car.name} paid {gain}, its payer promised {promised} less {back}")
        if not (site.cheat or car.cheat) and gain != held - back:
            checks.fail(f"payable: channel {name} of {car.name} paid {gain}, not the {held} less {back} that were held")


def _business(checks: Checks, car: CarActor) -> None:
    """The honest came to an end with all that they began, could go on with each other, and never fell out."""
    if not car.done:
        checks.fail(f"exit: {car.name} has not come to an end")
    last = car.bought[-1] if car.bought else None
    if last is None or not last.complete or last.meter.total != PROOF:
        checks.fail(f"exit: {car.name} could not buy once all was healed")
    site = checks.world.site
    poles = {name for name, outlet in site.outlets.items() if outlet.spoiled}
    for row in book.sessions(car.disk):
        at_fault = car.spoiled or car.mangled or row.terms.offer.name in poles
        if row.reason in ACCUSING and not at_fault:
            checks.fail(f"honest: {car.name} and the site fell out: {row.reason}")


def _receipts(checks: Checks, car: CarActor) -> None:
    """Both sides hold the same receipts."""
    for row in book.sessions(car.disk):
        theirs = book.session_of(checks.world.site.disk, row.terms.digest())
        if row.state is not State.ENDED:
            checks.fail(f"exit: a session of {car.name} never ended")
        if row.supplier_signature and (theirs is None or theirs.receipt != row.receipt):
            checks.fail(f"two receipts: one of {car.name} is not its supplier's")
        elif row.supplier_signature and row.receipt is not None and theirs is not None:
            _integral(checks, car, row, theirs)


def _integral(checks: Checks, car: CarActor, row: SessionRow, theirs: SessionRow) -> None:
    """A bill that was paid is the integral of the prices over what flowed, to the unit; less where money ran out."""
    receipt, terms = row.receipt, row.terms
    assert receipt is not None
    if (row.turns, row.feed_turns) != (theirs.turns, theirs.feed_turns):
        checks.fail(f"integral: {car.name} and the site let prices take effect at other totals")
    due, owed = sums(terms, row.turns, row.feed_turns, receipt.supplier_total, receipt.supplier_export)
    net, paid = due - owed, receipt.paid - receipt.repaid
    if receipt.unpaid != max(0, net - paid):
        checks.fail(f"integral: {paid} were paid of {net}, and {receipt.unpaid} are said to be unpaid")
    spoiled = checks.world.site.outlets[terms.offer.name].spoiled  # a valve of its own may cost a site more than it has
    if paid - net > (limits(terms)[1] if spoiled else 0) and receipt.reason != Reason.METERS_DISAGREE:
        checks.fail(f"integral: {paid} were paid for {receipt.supplier_total} and {receipt.supplier_export}, not {net}")


def _sums(checks: Checks, car: CarActor) -> None:
    """What receipts say was paid is what was paid."""
    accounts, site = checks.world.chain.head.accounts, checks.world.site
    by_channel: dict[bytes, list[SessionRow]] = {}
    for row in book.sessions(site.disk):
        if row.terms.consumer == car.key.address:
            by_channel.setdefault(book.account_in(row), []).append(row)
    for channel, rows in by_channel.items():
        receipts = [row.receipt for row in rows]
        if channel in accounts.channels and all(row.supplier_signature for row in rows):
            total = sum(receipt.paid - receipt.repaid for receipt in receipts if receipt)
            paid = accounts.channels[channel].paid[1] - accounts.channels[channel].deposits[1]
            if paid != total:
                checks.fail(f"two receipts: those of {car.name} say {total}, the ledger paid {paid}")
