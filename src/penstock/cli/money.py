"""Sums as people write them: whole tokens in, token units out, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.errors import OutOfRange, UsageError
from penstock.core.units import Amount, format_decimal, parse_decimal

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts


def sum_of(text: str | None, token: TokenFacts, flag: str) -> Amount:
    """Token units from a flag in whole tokens; it must be above 0.

    Raises:
        UsageError: it is no sum that the token can hold, or 0.
    """
    try:
        value = parse_decimal(text or "", token.decimals, flag)
    except OutOfRange as error:
        raise UsageError(str(error), f"a {token.symbol} has {token.decimals} decimals; write 0.40") from None
    if value == 0:
        raise UsageError(f"{flag} is 0", "nothing is sold for nothing here")
    return value


def shown(value: int, token: TokenFacts) -> str:
    """Token units in whole tokens with their symbol."""
    return f"{format_decimal(value, token.decimals)} {token.symbol}"
