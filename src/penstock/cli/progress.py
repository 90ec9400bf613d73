"""How a running session stands, as the facts of a `progress` event: for views, and for logs of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.core.session import Session


def standing(session: Session) -> dict[str, Any]:
    """The facts that both sides tell. Totals in the medium's unit, sums in token units, prices a quoted quantity.

    Where the flow may turn round: what flowed and was paid back, the prices in force, and `at` on the meter's clock.
    """
    facts: dict[str, Any] = {
        "session": session.digest.hex(),
        "total": session.meter.total,
        "paid": session.paid,
        "ticks": session.ticks,
        "exposure": session.control.exposure,
        "max_exposure": session.control.worst,
        "limit": session.terms.offer.credit_limit,
        "linked": session.linked,
    }
    account = session.account
    if account.feed is None or account.payer is None or account.payee is None:
        return facts
    back = account.payer if account.supplies else account.payee
    return facts | {
        "limit": session.control.limit,
        "at": session.meter.at,
        "way": session.way.name.lower(),
        "export": session.meter.export,
        "repaid": session.repaid,
        "back_ticks": back.ticks,
        "price": account.bill.price.amount,
        "feed_price": account.feed.price.amount,
    }
