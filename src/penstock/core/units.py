"""One integer type a unit: token units, quantities of a medium, prices, instants.

The types cost nothing at run time (`NewType`); what comes from outside enters through `amount`, `quantity` and
`instant`, which check it. Money and supply are never floats. Rounding has one home, `Price`: what is due is rounded
down (to the payer's favour, by less than one token unit), what may be supplied for a sum is rounded down too.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import NamedTuple, NewType

from penstock.core.errors import OutOfRange

Amount = NewType("Amount", int)
"""Token units: the smallest unit of the token (10**-6 EUR for a token of 6 decimals). At most uint96."""

Quantity = NewType("Quantity", int)
"""Units of a medium (Wh, L, bytes, core-ms, ms, requests, m): a running total or a difference of two."""

Instant = NewType("Instant", int)
"""Milliseconds since 1970-01-01 UTC."""

Duration = NewType("Duration", int)
"""Milliseconds."""

MAX_AMOUNT = Amount(2**96 - 1)  # what the contract's packed slot holds
MAX_QUANTITY = Quantity(2**63 - 1)
MAX_INSTANT = Instant(2**53 - 1)  # exact in every JSON reader
_MAX_DIGITS = 200  # of a decimal number as people write it; uint96 has 29


def _whole(value: object, name: str, most: int) -> int:
    if type(value) is not int:  # bool is an int to isinstance, and no number to us
        raise OutOfRange(f"{name} must be a whole number, not {value!r}")
    if not 0 <= value <= most:
        raise OutOfRange(f"{name} {value} is outside 0..{most}")
    return value


def amount(value: object) -> Amount:
    """A checked `Amount` (token units).

    Raises:
        OutOfRange: not a whole number in 0..2**96-1.
    """
    return Amount(_whole(value, "amount", MAX_AMOUNT))


def quantity(value: object) -> Quantity:
    """A checked `Quantity` (units of the medium).

    Raises:
        OutOfRange: not a whole number in 0..2**63-1.
    """
    return Quantity(_whole(value, "quantity", MAX_QUANTITY))


def instant(value: object) -> Instant:
    """A checked `Instant` (milliseconds since 1970 UTC).

    Raises:
        OutOfRange: not a whole number in 0..2**53-1.
    """
    return Instant(_whole(value, "instant", MAX_INSTANT))


def parse_decimal(text: str, decimals: int, name: str = "amount") -> Amount:
    """Token units from a decimal number in whole tokens: ("0.40", 6) -> 400_000.

    Raises:
        OutOfRange: no finite decimal number, negative, finer than the token's unit, or more than uint96.
    """
    try:
        value = Decimal(text.strip()[:_MAX_DIGITS])
    except InvalidOperation:
        raise OutOfRange(f"{name} {text[:40]!r} is not a decimal number") from None
    if not value.is_finite():
        raise OutOfRange(f"{name} {text[:40]!r} is not a finite number")
    if value.adjusted() > 40 or len(text.strip()) > _MAX_DIGITS:
        raise OutOfRange(f"{name} {text[:40]!r} is outside what a token holds")
    # Whole numbers, because Decimal's own arithmetic rounds to 28 digits, and uint96 has 29.
    sign, digits, exponent = value.as_tuple()
    whole = int("".join(map(str, digits)))
    shift = min(int(exponent) + decimals, 0) if whole else 0
    unit = 10 ** min(-shift, _MAX_DIGITS)
    if whole % unit:
        raise OutOfRange(f"{name} {text[:40]!r} is finer than the token's {decimals} decimals")
    scaled = whole // unit if shift or not whole else whole * 10 ** (int(exponent) + decimals)
    return Amount(_whole(-scaled if sign else scaled, name, MAX_AMOUNT))


def format_decimal(value: int, decimals: int) -> str:
    """Whole tokens from token units, without trailing zeros: (400_000, 6) -> "0.4"."""
    sign, digits = ("-", -value) if value < 0 else ("", value)
    whole, part = divmod(digits, 10**decimals)
    fraction = f"{part:0{decimals}d}".rstrip("0") if decimals and part else ""
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


class Price(NamedTuple):
    """`amount` token units for each `per` units of the medium (0.40 EUR/kWh: 400_000 per 1_000 Wh)."""

    amount: int
    per: int

    def cost(self, total: int) -> Amount:
        """What `total` units cost, rounded down to the token unit."""
        return Amount(total * self.amount // self.per)

    def affords(self, sum_: int) -> Quantity:
        """The largest quantity whose cost does not exceed `sum_` token units.

        A price of 0 affords any quantity: MAX_QUANTITY.
        """
        if self.amount == 0:
            return MAX_QUANTITY
        # cost(q) <= s  <=>  q * amount < (s + 1) * per
        return Quantity(((sum_ + 1) * self.per - 1) // self.amount)
