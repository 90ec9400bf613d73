"""What one side has promised in channels, as it goes over the wire: written down before, and nothing signed twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.codec import decode_part
from penstock.node import book
from penstock.rails.stream import VoucherNote, _parse_tick
from penstock.sim.disk import Disk

if TYPE_CHECKING:
    from penstock.sim.checks import Checks


class Promises:
    """The payers of one direction: all the cars, or the site. `most` is, by channel, the most that they promised."""

    def __init__(self, checks: Checks) -> None:
        self.most: dict[bytes, int] = {}
        self.given: dict[bytes, int] = {}  # as things stand: a bill may be less than what was paid ahead
        self._checks = checks
        self._roots: dict[tuple[bytes, bytes], int] = {}  # of locks, by channel, and the voucher that brought each
        self._signed: dict[tuple[bytes, int], bytes] = {}  # vouchers, by channel and nonce

    def give(self, disk: Disk, channel: bytes, evidence: tuple[bytes, ...]) -> None:
        """Somebody whose disk this is sends evidence."""
        for one in evidence:
            paid = book.paid_of(disk, channel)
            held = paid.note.voucher if paid else None
            if one[:1] == b"\x02":
                note = decode_part(one[1:], VoucherNote)
                nonce, value = note.voucher.nonce, note.voucher.amount
                self._check_once(channel, note)
            else:
                nonce, count, _ = _parse_tick(one)
                if held is None or paid is None or nonce > held.nonce:
                    self._checks.fail(f"durable: ticks were revealed under voucher {nonce}, which is not")
                    return
                if nonce != held.nonce:
                    continue  # a fold in the same message follows
                value = held.amount + count * (paid.note.locks[0].tick_value if paid.note.locks else 0)
            if held is None or held.nonce < nonce:
                self._checks.fail(f"durable: voucher {nonce} was sent, and is not")
            self.given[channel] = value
            self.most[channel] = max(self.most.get(channel, 0), value)

    def _check_once(self, channel: bytes, note: VoucherNote) -> None:
        """A nonce is signed once, and a chain is used once."""
        voucher = note.voucher
        if self._signed.setdefault((channel, voucher.nonce), note.signature) != note.signature:
            self._checks.fail(f"no signature twice: there are two vouchers {voucher.nonce} in one channel")
        for lock in note.locks:
            if self._roots.setdefault((channel, lock.root), voucher.nonce) != voucher.nonce:
                self._checks.fail(f"no seed twice: the chain under voucher {voucher.nonce} has been used before")
