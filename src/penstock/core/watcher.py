"""What to do about a channel that somebody closes: from what a payee can show and what the ledger says, the next act.

Nothing is remembered between two looks. What has been filed is read from the ledger each time, so that a restart, or a
reorganisation that takes an answer out of the chain, needs no treatment of its own.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

import msgspec

from penstock.core.channel import MAX_LOCKS, Answer, ChannelParams, locks_root
from penstock.core.errors import BadVoucher
from penstock.core.identity import Address, check_signed, to_hex
from penstock.core.ports import ChannelState, Filed, Filing
from penstock.core.units import MAX_AMOUNT, Amount


class Act(StrEnum):
    """What comes next for a channel."""

    REST = "rest"  # nothing now
    FILE = "file"  # put the voucher before the ledger, with its ticks
    PROVE = "prove"  # the voucher is there, ticks are missing
    SETTLE = "settle"  # the challenge is over
    END = "end"  # the ledger has paid it out


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """What a payee can show of a channel: its best voucher, the locks under it, and the ticks that it can prove.

    `partner` says which side the payee is. `consent` is the payee's signature over `Answer(voucher, its nonce)`, by
    which somebody else may file it; empty where the payee files itself.
    """

    params: ChannelParams
    partner: bool
    filing: Filing
    consent: bytes = b""

    @property
    def answer(self) -> Answer:
        """What the payee signs, so that somebody else may file the voucher: a newer one has the higher sequence."""
        return Answer(self.filing.voucher.content(self.params), self.filing.voucher.nonce)

    @property
    def payer_key(self) -> Address:
        """Whose vouchers these are."""
        return self.params.opener_key if self.partner else self.params.partner_key

    @property
    def payee_key(self) -> Address:
        """Who consents."""
        return self.params.partner_key if self.partner else self.params.opener_key

    @property
    def rank(self) -> tuple[int, Amount]:
        """What makes one evidence of a channel better than another: a newer voucher, then more ticks."""
        return self.filing.voucher.nonce, worth(self.filing)

    def check(self) -> None:
        """Pass where the ledger would take all of it.

        Raises:
            BadVoucher, BadSignature, OutOfRange: it would not; the text says which part.
        """
        self.params.check()
        voucher, locks, proofs = self.filing.voucher, self.filing.locks, self.filing.proofs
        if not (0 <= voucher.nonce < 2**64 and 0 <= voucher.locked_until < 2**64):
            raise BadVoucher("the voucher's nonce or expiry is outside uint64")
        if not (voucher.amount >= 0 and voucher.locked >= 0 and voucher.amount + voucher.locked <= MAX_AMOUNT):
            raise BadVoucher("the voucher's sums are outside uint96")
        if len(locks) > MAX_LOCKS:
            raise BadVoucher(f"the voucher has {len(locks)} locks, more than {MAX_LOCKS}")
        for lock in locks:
            lock.check()
        if not (self.partner or self.params.two_way):
            raise BadVoucher("the opener of a one-way channel receives nothing")
        check_signed(voucher.digest(self.params), self.filing.signature, self.payer_key, "the voucher")
        if self.consent:
            check_signed(self.answer.digest(self.params), self.consent, self.payee_key, "the answer")
        if voucher.locks_root != locks_root(locks) or voucher.locked != sum(lock.value for lock in locks):
            raise BadVoucher("the locks are not those of the voucher")
        if len(proofs) > len(locks):
            raise BadVoucher(f"there are {len(proofs)} proofs for {len(locks)} locks")
        for lock, (count, preimage) in zip(locks, proofs, strict=False):
            link = preimage
            if not 0 <= count <= lock.ticks:
                raise BadVoucher(f"{count} ticks are proven of a lock that has {lock.ticks}")
            if count and len(preimage) != 32:
                raise BadVoucher("a preimage is 32 bytes")
            for _ in range(count):
                link = sha256(link).digest()
            if count and link != lock.root:
                raise BadVoucher(f"a preimage does not prove {count} ticks of lock {to_hex(lock.root)}")


def worth(filing: Filing | None) -> Amount:
    """What a filing is worth on the ledger, its proven ticks included (token units)."""
    if filing is None:
        return Amount(0)
    ticks = zip(filing.locks, filing.proofs, strict=False)
    return Amount(filing.voucher.amount + sum(lock.tick_value * count for lock, (count, _) in ticks))


def _provable(filing: Filing, now: int) -> int:
    """What a filing is worth by locks that can still be proven after the challenge; a lock without expiry cannot."""
    ticks = zip(filing.locks, filing.proofs, strict=False)
    live = sum(lock.tick_value * count for lock, (count, _) in ticks if now < lock.expiry)
    return filing.voucher.amount + live


def next_act(shown: Evidence | None, state: ChannelState, filed: Filed | None, now: int) -> Act:
    """The payee's next act. `filed` is what the ledger has in its favour in a challenge; `now` the ledger's time (s).

    A voucher with hop locks is filed even where no tick is known yet: whoever learns one later can prove it then.
    Nobody can answer for a payee that has filed itself; its ticks can still be proven. What brings the payee nothing is
    not done: it would cost gas.
    """
    if state.status == "settled":
        return Act.END
    if state.status != "closing" or filed is None or shown is None:
        return Act.REST
    drawn, deposit = state.opener_drawn, state.opener_deposit
    if shown.partner:
        drawn, deposit = state.partner_drawn, state.partner_deposit
    voucher, value = shown.filing.voucher, worth(shown.filing)
    standing = filed.present and bool(voucher.locked) and filed.locks_root == voucher.locks_root
    if now >= state.closes_at:
        if standing and _provable(shown.filing, now) > filed.amount:
            return Act.PROVE  # a lock that has not expired can be proven after the challenge
        return Act.SETTLE if filed.amount + deposit > drawn else Act.REST
    if standing:
        return Act.PROVE if value > filed.amount else Act.REST
    hops = any(lock.expiry for lock in shown.filing.locks) and filed.amount <= voucher.amount
    if value <= max(filed.amount, drawn) and not hops:
        return Act.REST
    return Act.REST if shown.consent and filed.by_payee else Act.FILE


def at_risk(shown: Evidence | None, state: ChannelState, filed: Filed | None) -> Amount:
    """What the payee would lose if nobody did anything more (token units).

    In an open channel that is all that its voucher is worth beyond what it has drawn: the payer may begin to close at
    any time, and is paid out one challenge period later. Where payments went to and fro it is at most what was put in.
    """
    if shown is None or state.status in ("absent", "settled"):
        return Amount(0)
    drawn = state.partner_drawn if shown.partner else state.opener_drawn
    had = filed.amount if filed is not None and state.status == "closing" else drawn
    risk = Amount(max(0, worth(shown.filing) - had))
    return min(risk, Amount(state.opener_deposit + state.partner_deposit)) if shown.params.two_way else risk
