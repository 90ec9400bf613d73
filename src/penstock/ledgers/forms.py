"""The words in which the channel contract takes and keeps what it is about, from and to the core's records.

Source: docs/contract.md, "Forms". Everything packed is written from the lowest bit up.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from penstock.core.channel import ChannelParams, Lock, LockTree, Voucher, compact, proof_words
from penstock.core.errors import BadSignature
from penstock.core.identity import Address, Digest, recover
from penstock.core.ports import ChannelState, Filed, Filing, SignedClose, SignedVoucher
from penstock.core.units import Amount

PROOF_WORDS = 104  # in one transaction; the contract's bound
PROOF_TICKS = 50_000  # in one transaction: 13.2 million gas of the 16.7 that one may use (EIP-7825)
SPARED = (0, 0)  # the signature of who sends a consent itself
_UINT96 = 2**96 - 1

# Bits of a channel's word; the partner's flag stands one above the opener's.
_CLOSES_AT, _EXISTS, _FILED, _ITSELF, _LATE, _RESTARTED = 192, 232, 236, 238, 242, 246


class Row(NamedTuple):
    """Ticks of a lock, and the words of their proof."""

    lock: Lock
    words: list[bytes]


def word_of(address: bytes) -> int:
    """An address as a word."""
    return int.from_bytes(address, "big")


def state_of(params: ChannelParams, word: int, drawn: int, lowest: int) -> ChannelState:
    """A channel from its word, what was drawn (opener's 96 bits | partner's) and the opener's lowest free counter.

    The word: opener deposit (96 bits) | partner deposit (96) | closes_at (40) | flags. A one-way channel has no partner
    deposit; the contract keeps other things in its place.
    """
    if not word >> _EXISTS & 1:
        ended = word or params.counter < lowest
        return ChannelState("settled" if ended else "absent")
    closes_at = word >> _CLOSES_AT & (2**40 - 1)
    partner = word >> 96 & _UINT96 if params.two_way else 0
    return ChannelState(
        "closing" if closes_at else "open",
        Amount(word & _UINT96),
        Amount(partner),
        closes_at,
        Amount(drawn & _UINT96),
        Amount(drawn >> 96),
    )


def began_at(params: ChannelParams, word: int) -> int:
    """When the challenge of a closing channel began (seconds), or before: each side's late locks, and each release,
    may have let it last one period more."""
    extended = (word >> _LATE & 3).bit_count() + (word >> _RESTARTED & 3).bit_count()
    return (word >> _CLOSES_AT & (2**40 - 1)) - (1 + extended) * params.period


def filed_of(state: ChannelState, word: int, partner: bool, values: tuple[int, int, int, bytes]) -> Filed:
    """What is filed in a side's favour, from the channel's word and what the contract's `filing` returns."""
    amount, locked, until, tree = values
    return Filed(
        state,
        bool(word >> (_FILED + partner) & 1),
        bool(word >> (_ITSELF + partner) & 1),
        Amount(amount),
        Amount(locked),
        until,
        tree,
    )


def params_words(params: ChannelParams) -> tuple[int, ...]:
    """A channel for the contract; a key that is its party's account is left out, and zeros are cheap."""
    return (word_of(params.opener), word_of(params.partner), *place_words(params, 0)[2:], params.terms)


def place_words(params: ChannelParams, deposit: int) -> tuple[int, int, int, int]:
    """A channel that its opener opens: partner and deposit, terms, keys."""
    return (
        word_of(params.partner) | deposit << 160,
        params.terms,
        0 if params.opener_key == params.opener else word_of(params.opener_key),
        0 if params.partner_key == params.partner else word_of(params.partner_key),
    )


def sums_word(sum_: int, fee: int) -> int:
    """A deposit or total, and the sender's fee."""
    return sum_ | fee << 96


def account_signature(signature: bytes, digest: Digest, owner: Address) -> bytes:
    """An account's signature as the contract takes it: 64 bytes of a plain key, a wallet's as it is (EIP-1271)."""
    try:
        plain = recover(digest, signature) == owner
    except BadSignature:
        plain = False
    return b"".join(word.to_bytes(32, "big") for word in compact(signature)) if plain else signature


def split_word(opener_total: int, partner_total: int, expiry: int) -> int:
    """What both sides sign of a close or a withdrawal."""
    return opener_total | partner_total << 96 | expiry << 192


def consent_words(
    sender: Address, params: ChannelParams, split: int, opener_signature: bytes, partner_signature: bytes
) -> tuple[object, ...]:
    """A close or a withdrawal that both sides signed; whoever of them sends it needs no signature there."""
    return (
        params_words(params),
        split,
        SPARED if sender == params.opener else compact(opener_signature),
        SPARED if sender == params.partner else compact(partner_signature),
    )


def close_words(sender: Address, row: SignedClose) -> tuple[object, ...]:
    """A close in its long form."""
    close = row.close
    split = split_word(close.opener_balance, close.partner_balance, close.expiry)
    return consent_words(sender, row.params, split, row.opener_signature, row.partner_signature)


def close_row(row: SignedClose) -> tuple[int, ...]:
    """A close in its short form."""
    params, close = row.params, row.close
    return (
        word_of(params.opener) | close.partner_balance << 160,
        params.terms | close.expiry << 128,
        *compact(row.opener_signature),
    )


def claim_row(row: SignedVoucher) -> tuple[int, ...]:
    """A voucher without locks in its short form."""
    params, voucher = row.params, row.voucher
    return (
        word_of(params.opener) | voucher.amount << 160,
        params.terms | voucher.nonce << 128,
        *compact(row.signature),
    )


def is_short(sender: Address, params: ChannelParams) -> bool:
    """Whether a row about this channel takes the short form: from the partner, the opener's account being its key."""
    return sender == params.partner and params.opener_key == params.opener


def voucher_words(voucher: Voucher) -> tuple[object, ...]:
    """A voucher."""
    return (voucher.nonce, voucher.amount, voucher.locked, voucher.locked_until, voucher.locks_root)


def proof_waves(filing: Filing) -> list[list[Row]]:
    """The ticks that a filing can prove, in the order of its locks.

    What no transaction could walk at once is proven in two waves, of which the second needs the first in the chain.
    """
    tree = LockTree(filing.locks)
    waves: list[list[Row]] = [[], []]
    for index, (count, preimage) in enumerate(filing.proofs):
        lock = filing.locks[index]
        if count > PROOF_TICKS:
            waves[1].append(Row(lock, proof_words(tree, index, count, preimage)))
            for _ in range(count - PROOF_TICKS):
                preimage = sha256(preimage).digest()
        if count > 0:
            waves[0].append(Row(lock, proof_words(tree, index, min(count, PROOF_TICKS), preimage)))
    return [wave for wave in waves if wave]


def in_transactions(rows: Sequence[Row]) -> list[list[Row]]:
    """Proofs, as many together as a transaction takes."""
    parts: list[list[Row]] = []
    size = walked = 0
    for row in rows:
        ticks = int.from_bytes(row.words[0], "big") >> 32 & 0xFFFF
        if not parts or size + len(row.words) > PROOF_WORDS or walked + ticks > PROOF_TICKS:
            parts.append([])
            size = walked = 0
        parts[-1].append(row)
        size, walked = size + len(row.words), walked + ticks
    return parts


def joined(rows: Sequence[Row]) -> list[bytes]:
    """The words of proofs that go together."""
    return [word for row in rows for word in row.words]
