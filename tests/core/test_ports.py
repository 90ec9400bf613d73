from __future__ import annotations

from penstock.core.errors import LedgerError, TransactionFailed
from penstock.core.ports import ChannelState, Holdings
from penstock.core.units import Amount


def test_an_accounts_tokens_are_those_outside_channels() -> None:
    assert Holdings(Amount(3), Amount(4), 5).tokens == 7


def test_a_channel_that_was_never_opened_holds_nothing() -> None:
    assert ChannelState("absent") == ChannelState("absent", Amount(0), Amount(0), 0)


def test_a_transaction_that_failed_says_why_in_the_contracts_own_word() -> None:
    error = TransactionFailed("the chain reverted it", "wait", reason="channel: closing")
    assert isinstance(error, LedgerError)
    assert (error.reason, error.line()) == ("channel: closing", "the chain reverted it: wait")
