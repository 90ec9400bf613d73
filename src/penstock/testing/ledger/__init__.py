"""What every `core.ports.Ledger` must do, as checks against any implementation.

Give each check of `LEDGER_CHECKS` a fresh `Stand` (or run them all with `check_ledger`):

    @pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
    def test_a_ledger_conforms(check):
        async def run():
            async with my_stand() as stand:
                await check(stand)
        asyncio.run(run())

A check passes, or raises AssertionError with what was not kept. After every check no token unit has appeared or gone.
What reorganisations and lost transactions do must be tested with the real node.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from penstock.testing.ledger.endings import (
    a_claim_pays_what_is_new_of_a_voucher,
    a_close_that_both_signed_pays_at_once,
    a_close_that_nobody_answers_ends_with_its_period,
    a_close_waits_for_the_payees_answer,
    a_payee_is_held_to_its_release,
    a_withdrawal_pays_totals_that_both_signed_once,
    many_claims_skip_what_is_not_taken,
    many_closes_skip_what_is_not_taken,
    somebody_answers_with_the_payees_leave_alone,
    ticks_that_were_proven_are_shown_to_everybody,
)
from penstock.testing.ledger.openings import (
    a_balance_is_its_owners,
    a_deposit_is_raised_by_its_owner_alone,
    a_ledger_out_of_reach_says_so,
    an_authorization_opens_from_the_wallet_once,
    an_opening_by_signature_is_sent_by_anybody_for_its_fee,
    an_opening_is_there_when_the_call_returns,
    another_ledgers_channel_is_refused,
)
from penstock.testing.ledger.stand import WALLET, Check, Stand

__all__ = ["LEDGER_CHECKS", "WALLET", "Check", "Stand", "check_ledger"]

LEDGER_CHECKS: tuple[Check, ...] = (
    an_opening_is_there_when_the_call_returns,
    an_opening_by_signature_is_sent_by_anybody_for_its_fee,
    an_authorization_opens_from_the_wallet_once,
    a_deposit_is_raised_by_its_owner_alone,
    a_claim_pays_what_is_new_of_a_voucher,
    many_claims_skip_what_is_not_taken,
    a_withdrawal_pays_totals_that_both_signed_once,
    a_close_that_both_signed_pays_at_once,
    many_closes_skip_what_is_not_taken,
    a_close_waits_for_the_payees_answer,
    a_close_that_nobody_answers_ends_with_its_period,
    somebody_answers_with_the_payees_leave_alone,
    ticks_that_were_proven_are_shown_to_everybody,
    a_payee_is_held_to_its_release,
    a_balance_is_its_owners,
    another_ledgers_channel_is_refused,
    a_ledger_out_of_reach_says_so,
)


async def check_ledger(new_stand: Callable[[], AbstractAsyncContextManager[Stand]]) -> None:
    """Run every check, each on a fresh ledger."""
    for check in LEDGER_CHECKS:
        async with new_stand() as stand:
            await check(stand)
