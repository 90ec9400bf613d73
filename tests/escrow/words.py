"""How the escrow contract takes parameters, tariffs, readings and ends, and what its words say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.core.escrow import EscrowDomain, EscrowParams, MeterReading, step_words
from penstock.core.identity import Address
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity

from ..contracts.world import word

UINT32, UINT40, UINT64, UINT96, UINT160 = (2**bits - 1 for bits in (32, 40, 64, 96, 160))
EXISTS, LAST, CONTESTED, ENDED = 1, 2, 4, 8


def abi_params(params: EscrowParams) -> tuple[Any, ...]:
    """An escrow's parameters as the contract takes them."""
    parties = (params.payer, params.payee, params.payer_key, params.payee_key, params.meter)
    return (*map(word, parties), params.tariff, params.terms)


def abi_tariff(tariff: Tariff) -> tuple[int, tuple[int, ...]]:
    """A tariff as the contract takes it."""
    return tariff.per, tuple(step_words(tariff))


def abi_reading(reading: MeterReading) -> tuple[Any, ...]:
    """A reading as the contract takes it."""
    return reading.sequence, reading.at, reading.total, tuple(reading.turns), reading.last


def read_params(domain: EscrowDomain, words: Sequence[Any]) -> EscrowParams:
    """What the contract makes of such words; an address that is none stays recognisable by its length."""
    *parties, tariff, terms = words
    payer, payee, payer_key, payee_key, meter = (
        Address(party.to_bytes(20 if party <= UINT160 else 32, "big")) for party in parties
    )
    return EscrowParams(
        domain, payer, payee, payer_key, payee_key, meter, tariff,
        deposit=terms >> 160, deadline=terms >> 64 & UINT64, window=terms >> 128 & UINT32, counter=terms & UINT64,
    )  # fmt: skip


def read_tariff(words: Sequence[Any]) -> Tariff:
    """The tariff in such words."""
    per, steps = words
    return Tariff(per, tuple(Step(Instant(step >> 96), step & UINT96) for step in steps))


def read_reading(words: Sequence[Any]) -> MeterReading:
    """The reading in such words."""
    sequence, at, total, turns, last = words
    return MeterReading(sequence, Instant(at), Quantity(total), tuple(map(Quantity, turns)), last)
