"""An escrow: a deposit for one session, released by what the meter signs. Its fixed parameters and id, and its forms.

The forms are the contract's (`contracts/Escrow.vy`): EIP-712 under the domain
`("Penstock Escrow", "1", chainId, contract)`, one type for each purpose, and

    seed   = keccak(domain separator || token)
    id     = keccak(seed || payer || payee || payer_key || payee_key || meter || tariff || terms)   in 32-byte words
    terms  = counter (64 bits) | deadline (64, seconds) | window (32, seconds) | deposit (96), from the lowest bit up
    tariff = keccak(per || step || ...)                    in 32-byte words, where
    step   = amount (96 bits) | start (64, milliseconds), from the lowest bit up

A reading is billed as `core.tariff` does it: `turns` are the totals at which the steps after the first took effect,
the sum over all steps is divided by `per` once and rounded down, and no more is due than the deposit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from penstock.core.channel import Domain
from penstock.core.errors import BadTerms, OutOfRange
from penstock.core.identity import Address, Digest, keccak
from penstock.core.tariff import Bill, Tariff
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Quantity

MAX_STEPS = 96  # of a tariff that the contract computes: a day of quarter hours
MAX_WINDOW = 30 * 86_400  # seconds
MAX_LIFE = 365 * 86_400  # seconds from the deposit to the deadline

READING_TYPE = "Reading(bytes32 escrow,uint64 sequence,uint64 at,uint64 total,uint64[] turns,bool last)"
END_TYPE = "End(bytes32 escrow,uint96 amount)"
DEPOSIT_TYPE = "Deposit(bytes32 escrow,uint96 fee,uint64 expiry)"

_READING_HASH = keccak(READING_TYPE.encode())
_END_HASH = keccak(END_TYPE.encode())
_DEPOSIT_HASH = keccak(DEPOSIT_TYPE.encode())


def _word(value: int | bytes) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")


class EscrowDomain(Domain, frozen=True, dict=True):
    """Where escrows live: one contract on one chain, which serves one token."""

    name: ClassVar[str] = "Penstock Escrow"


def step_words(tariff: Tariff) -> list[int]:
    """A tariff's steps as the contract takes them, one word each."""
    return [step.amount | step.start << 96 for step in tariff.steps]


def tariff_hash(tariff: Tariff) -> bytes:
    """What a deposit commits to of the price. 32 bytes."""
    return keccak(_word(tariff.per) + b"".join(map(_word, step_words(tariff))))


class EscrowParams(msgspec.Struct, frozen=True, dict=True):
    """What is fixed at the deposit; the escrow's id commits to all of it.

    `payer_key` and `payee_key` are the addresses of the plain keys that agree on an early end; `meter` is that of the
    key that signs readings. `deadline` (seconds since 1970) is when readings are no longer taken, and the payer gets
    the rest back; `window` (seconds) is how long a claim waits for the payer's objection. `counter` is the payer's own.
    """

    domain: EscrowDomain
    payer: Address
    payee: Address
    payer_key: Address
    payee_key: Address
    meter: Address
    tariff: bytes
    deposit: int
    deadline: int
    window: int
    counter: int

    @cached_property
    def id(self) -> bytes:
        """The escrow's id. 32 bytes."""
        return keccak(
            self.domain.seed
            + _word(self.payer)
            + _word(self.payee)
            + _word(self.payer_key)
            + _word(self.payee_key)
            + _word(self.meter)
            + self.tariff
            + _word(self.terms)
        )

    @property
    def terms(self) -> int:
        """Counter, deadline, window and deposit in one word."""
        return self.counter | self.deadline << 64 | self.window << 128 | self.deposit << 160

    def check(self) -> None:
        """Pass where the contract would take such a deposit, deadlines apart.

        Raises:
            OutOfRange: a party or key is zero, the parties or their keys are the same, or a number is out of bounds.
        """
        parties = (self.payer, self.payee, self.payer_key, self.payee_key, self.meter)
        if any(len(party) != 20 or party == bytes(20) for party in parties):
            raise OutOfRange("an escrow's parties and keys are addresses of 20 bytes, none of them zero")
        if self.payer == self.payee or self.payer_key == self.payee_key or self.meter == self.payer_key:
            raise OutOfRange("an escrow joins two different parties with two different keys, and no payer's own meter")
        if len(self.tariff) != 32 or not 0 < self.deposit <= MAX_AMOUNT:
            raise OutOfRange("an escrow has the hash of its tariff, 32 bytes, and a deposit within uint96")
        if not 0 <= self.window <= MAX_WINDOW:
            raise OutOfRange(f"a window of {self.window} s is outside 0..{MAX_WINDOW} s")
        if not (0 <= self.counter < 2**64 and 0 < self.deadline < 2**63):
            raise OutOfRange("an escrow's counter is a uint64, its deadline a time in seconds")
        if not 0 <= self.domain.chain_id < 2**256 or {len(self.domain.contract), len(self.domain.token)} != {20}:
            raise OutOfRange("an escrow's ledger is a chain's uint256 and two addresses of 20 bytes")

    def digest(self, struct_hash: bytes) -> Digest:
        """The EIP-712 digest of a struct under this escrow's domain."""
        return Digest(keccak(self.domain.head + struct_hash))


class MeterReading(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the meter's key signs: the session's total (units of the medium) at an instant (ms) of the meter's clock.

    `sequence` rises by at least one with each reading, and `at`, `total` and `turns` never go back. After the one that
    is `last` there is none.
    """

    sequence: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    at: Annotated[Instant, Meta(ge=0, le=MAX_INSTANT)]
    total: Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)]
    turns: tuple[Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)], ...] = ()
    last: bool = False

    def digest(self, escrow: EscrowParams) -> Digest:
        """What is signed."""
        return escrow.digest(
            keccak(
                _READING_HASH
                + escrow.id
                + _word(self.sequence)
                + _word(self.at)
                + _word(self.total)
                + keccak(b"".join(map(_word, self.turns)))
                + _word(int(self.last))
            )
        )

    def due(self, tariff: Tariff, deposit: int) -> Amount:
        """What the contract releases for it in all (token units).

        Raises:
            BadTerms: the turns do not fit the tariff, or the tariff's steps that have begun at `at`.
        """
        turned, steps = len(self.turns), tariff.steps
        bill = Bill(tariff, self.turns)
        begun = turned == 0 or steps[turned].start <= self.at
        if not begun or bill.turns_at(self.at) or (self.turns and self.turns[-1] > self.total):
            raise BadTerms("the reading's turns are not those of the tariff at its time and total")
        return Amount(min(bill.due(self.total), deposit))

    def contradicts(self, other: MeterReading) -> bool:
        """Whether no honest meter signs both, of one escrow."""
        first, second = sorted((self, other), key=lambda reading: reading.sequence)
        if first.sequence == second.sequence:
            return first != second
        known = len(first.turns)
        back = second.total < first.total or second.at < first.at or second.turns[:known] != first.turns
        return first.last or back or any(turn < first.total for turn in second.turns[known:])


class SignedReading(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A reading with its meter's signature (65 bytes)."""

    reading: MeterReading
    signature: bytes


def end_digest(escrow: EscrowParams, amount: int) -> Digest:
    """What both keys sign to end an escrow at once: the payee gets `amount` token units in all, the payer the rest."""
    return escrow.digest(keccak(_END_HASH + escrow.id + _word(amount)))


def deposit_digest(escrow: EscrowParams, fee: int, expiry: int) -> Digest:
    """What the payer's account signs so that anybody may make its deposit from its balance, until `expiry` (s)."""
    return escrow.digest(keccak(_DEPOSIT_HASH + escrow.id + _word(fee) + _word(expiry)))


def authorization_nonce(escrow: EscrowParams, fee: int = 0) -> bytes:
    """The nonce of the EIP-3009 authorization over deposit and fee that funds the escrow. 32 bytes."""
    return keccak(escrow.id + _word(fee))
