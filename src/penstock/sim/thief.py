"""A thief's messages: well formed, signed by the thief's own key where that is all it takes, and not true."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import msgspec

from penstock.core.channel import ChannelParams, Lock, Voucher
from penstock.core.codec import decode, decode_part, encode
from penstock.core.identity import Key
from penstock.core.messages import AskClose, Final, Message, Metered, Paid, Propose, Resumed, Square
from penstock.core.units import Amount, Quantity
from penstock.rails.stream import VoucherNote, decode_terms

TICKS, VOUCHER = b"\x01", b"\x02"  # the first byte of evidence


class Thief:
    """Changes some of the messages that the real code sends, as a consumer or as a supplier would gain by."""

    def __init__(self, rng: Random, key: Key) -> None:
        self.forged: dict[bytes, VoucherNote] = {}  # by channel: the last voucher that squares a bill, as it was sent
        self._rng, self._key = rng, key
        self._params: ChannelParams | None = None

    def __call__(self, frame: bytes) -> list[bytes]:
        message = decode(frame)
        if isinstance(message, Propose):
            self._params = decode_terms(message.terms.rail_terms).params
        if self._rng.random() > (0.4 if isinstance(message, Propose | Square | AskClose) else 0.15):
            return [frame]
        return [encode(self._lie(message))]

    def _lie(self, message: Message) -> Message:
        more = self._rng.choice((1, 3, 50, 10_000))
        match message:
            case Propose():
                return msgspec.structs.replace(message, evidence=self._evidence(message.evidence))
            case Paid() if message.evidence:
                return msgspec.structs.replace(message, evidence=tuple(map(self._evidence, message.evidence)))
            case Square():
                return self._square(message)
            case AskClose():
                return self._close(message)
            case Metered() | Final():
                return msgspec.structs.replace(message, total=Quantity(message.total + more))
            case Resumed() if self._rng.random() < 0.5:
                return msgspec.structs.replace(message, total=Quantity(message.total + more))
            case Resumed():
                nonce, count = int.from_bytes(message.state[1:9], "big"), int.from_bytes(message.state[9:13], "big")
                said = self._rng.choice((0, count + 1, max(0, count - 1)))
                return msgspec.structs.replace(message, state=_ticks(nonce, said, message.state[13:]))
        return message

    def _evidence(self, evidence: bytes) -> bytes:
        """Ticks that nobody can prove, or a voucher that is worth less, is not signed, or promises too much."""
        if evidence[:1] == TICKS:
            nonce, count = int.from_bytes(evidence[1:9], "big"), int.from_bytes(evidence[9:13], "big")
            return _ticks(nonce, count + self._rng.choice((1, 5)), evidence[13:])
        note = decode_part(evidence[1:], VoucherNote)
        voucher, locks = note.voucher, note.locks
        way = self._rng.randrange(4)
        if way == 0:
            return self._note(Voucher.over(voucher.nonce, max(0, voucher.amount - 1_000), locks), locks)
        if way == 1:
            return self._note(Voucher.over(voucher.nonce, voucher.amount + 10**9, locks), locks)
        if way == 2 and locks:
            longer = (Lock(locks[0].root, locks[0].tick_value, locks[0].ticks + 1),)
            return self._note(Voucher.over(voucher.nonce, voucher.amount, longer), longer)
        other = bytes((*note.signature[:10], note.signature[10] ^ 1, *note.signature[11:]))
        return VOUCHER + encode(VoucherNote(voucher, other, locks))

    def _square(self, message: Square) -> Square:
        """A receipt that pays less, with a voucher to match."""
        if message.evidence[:1] != VOUCHER:
            return message
        note, receipt = decode_part(message.evidence[1:], VoucherNote), message.receipt
        short = min(receipt.paid, self._rng.choice((1, 200, 1_000, 5_000)))
        told = msgspec.structs.replace(
            receipt, paid=Amount(receipt.paid - short), unpaid=Amount(receipt.unpaid + short)
        )
        voucher = Voucher.over(note.voucher.nonce, max(0, note.voucher.amount - short))
        squared = self._note(voucher, ())
        if self._params is not None:
            self.forged[self._params.id] = decode_part(squared[1:], VoucherNote)
        return Square(told, self._key.sign(told.digest()), squared)

    def _close(self, message: AskClose) -> AskClose:
        """A close that pays less."""
        close, params = message.close, self._params
        short = min(close.partner_balance, self._rng.choice((1, 1_000, 5_000)))
        if params is None or params.id != message.channel:
            return message
        told = msgspec.structs.replace(
            close,
            opener_balance=Amount(close.opener_balance + short),
            partner_balance=Amount(close.partner_balance - short),
        )
        return AskClose(message.channel, told, self._key.sign(told.digest(params)))

    def _note(self, voucher: Voucher, locks: tuple[Lock, ...]) -> bytes:
        """A voucher that we sign, whatever it says."""
        if self._params is None:
            return VOUCHER + encode(VoucherNote(voucher, bytes(65), locks))
        return VOUCHER + encode(VoucherNote(voucher, self._key.sign(voucher.digest(self._params)), locks))


def _ticks(nonce: int, count: int, preimage: bytes) -> bytes:
    """Evidence of ticks, made by hand."""
    return TICKS + nonce.to_bytes(8, "big") + count.to_bytes(4, "big") + (preimage or sha256(b"").digest())
