"""Ending an escrow on the ledger without the other side: claim, get the rest back, contest."""

from __future__ import annotations

from itertools import combinations

import msgspec

from penstock.core.codec import encode
from penstock.core.errors import BadTerms, UsageError
from penstock.core.escrow import EscrowParams, SignedReading, end_digest
from penstock.core.identity import Key, to_hex
from penstock.core.ports import EscrowLedger, EscrowState, Journal, Mined, SignedEnd
from penstock.core.session import Role
from penstock.core.tariff import Tariff
from penstock.core.units import Amount
from penstock.node import book
from penstock.node.book import EscrowRow
from penstock.node.tasks import durable
from penstock.rails.escrow import READING_ROWS, next_reading

Pair = tuple[SignedReading, SignedReading]


async def settle(journal: Journal, ledger: EscrowLedger, key: Key, row: EscrowRow) -> tuple[list[Mined], EscrowState]:
    """Claim what we hold, as the payee, and pay out what has matured; the payer gets the rest where it is over.

    Raises:
        UsageError: the key is not our party's, or there is nothing to be paid, or not yet.
        LedgerError: the ledger did not take it.
    """
    _check_party(row, key)
    params = row.params
    mined: list[Mined] = []
    state = await ledger.escrow(params)
    if row.role is Role.SUPPLIER and state.status == "open":
        mined += await _claim(journal, ledger, key, row, state)
        state = await ledger.escrow(params)
    now = await ledger.now()
    if state.status in ("open", "ending") and payable(params, state, now):
        mined += await ledger.settle(key, params)
    if not mined:
        await _keep(journal, ledger, row, [])
        raise UsageError(f"the escrow is {state.status} on the ledger", _advice(params, state, now))
    return mined, await _keep(journal, ledger, row, mined)


async def contest(journal: Journal, ledger: EscrowLedger, key: Key, row: EscrowRow) -> tuple[list[Mined], EscrowState]:
    """Show the ledger two readings of the meter's that contradict each other: ours, or such as were filed.

    Raises:
        UsageError: no claim waits, or no readings contradict each other. LedgerError: the ledger did not take it.
    """
    params = row.params
    state = await ledger.escrow(params)
    if state.claimed == state.drawn or state.matures_at <= await ledger.now():
        raise UsageError(
            f"no claim waits in the escrow, which is {state.status} on the ledger", "a claim is contested in its window"
        )
    ours = (book.reading_of(journal, params.id), book.proof_of_lie(journal, params.id))
    held = [one for one in (*ours, *await ledger.filed(params)) if one is not None]
    pair = contradiction(row.tariff, params.deposit, held)
    if pair is None:
        raise UsageError(
            f"no two of the {len(held)} readings that we know contradict each other", "the meter's word stands"
        )
    mined = await ledger.contest(key, params, row.tariff, *pair)
    return mined, await _keep(journal, ledger, row, mined)


def contradiction(tariff: Tariff, deposit: int, readings: list[SignedReading]) -> Pair | None:
    """Of the pairs of readings that contradict each other, the one that leaves the least due; None where there is none.

    The contract computes what is due for both: a reading that does not fit the tariff proves nothing to it.
    """

    def due(signed: SignedReading) -> int | None:
        try:
            return signed.reading.due(tariff, deposit)
        except BadTerms:
            return None

    fitting = [(worth, signed) for signed in readings if (worth := due(signed)) is not None]
    fitting.sort(key=lambda one: one[0])
    for (_, lesser), (_, other) in combinations(fitting, 2):  # in the order of the lesser one's due
        if lesser.reading.contradicts(other.reading):
            return lesser, other
    return None


async def _claim(journal: Journal, ledger: EscrowLedger, key: Key, row: EscrowRow, state: EscrowState) -> list[Mined]:
    """File the best that we hold for our claim: the end that the payer signed, else the meter's reading.

    Where the meter's key is ours, it signs its last reading: nothing flows after it.
    """
    params = row.params
    end, signed = book.end_of(journal, params.id), book.reading_of(journal, params.id)
    if end is not None and key.address == params.payee_key:
        ours = key.sign(end_digest(params, end.amount))
        return await ledger.end(key, [SignedEnd(params, Amount(end.amount), end.signature, ours)])
    if signed is None or await ledger.now() >= params.deadline:
        return []
    reading, meter = signed.reading, book.meter_of(journal)
    if not reading.last and meter is not None and meter.address == params.meter:
        signed = next_reading(params, meter, signed, reading.total, reading.at, reading.turns, last=True)
        await durable(journal, ((READING_ROWS + params.id, encode(signed)),))
    if signed.reading.due(row.tariff, params.deposit) <= state.claimed and not signed.reading.last:
        return []
    return await ledger.release(key, params, row.tariff, signed)


def payable(params: EscrowParams, state: EscrowState, now: int) -> bool:
    """Whether the contract would pay something out now."""
    if state.claimed > state.drawn:
        return state.matures_at <= now
    return state.status == "ending" or now >= params.deadline


def _advice(params: EscrowParams, state: EscrowState, now: int) -> str:
    """When there will be something to settle."""
    if state.status == "absent":
        return "no deposit was made, or it is not deep enough in the chain yet"
    if state.status == "ended":
        return f"the payee got {state.drawn} token units, the payer the rest"
    if state.claimed > state.drawn:
        return f"the claim of {state.claimed} token units can be paid in {state.matures_at - now} s"
    return f"what is not claimed comes back in {params.deadline - now} s"


async def _keep(journal: Journal, ledger: EscrowLedger, row: EscrowRow, mined: list[Mined]) -> EscrowState:
    state = await ledger.escrow(row.params)
    settled = state.status == "ended" and await ledger.final(row.params)  # not what a reorganisation may take back
    await durable(journal, msgspec.structs.replace(row, settled=settled, mined=(*row.mined, *mined)).rows())
    return state


def _check_party(row: EscrowRow, key: Key) -> None:
    ours = row.params.payer if row.role is Role.CONSUMER else row.params.payee
    if key.address != ours:
        raise UsageError(
            f"key {to_hex(key.address)} is not our side of this escrow, {to_hex(ours)}", "choose another with --key"
        )
