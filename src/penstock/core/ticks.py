"""Hash chains: a payer's chain of ticks, and a payee's proof of how far it has been revealed.

    root = sha256^ticks(seed)        the k-th preimage p satisfies sha256^k(p) = root

so that revealing p proves k ticks, and the next tick costs one SHA-256 to verify (PayWord: Rivest, Shamir 1996).
"""

from __future__ import annotations

try:
    # CPython's own: on 32 bytes a quarter quicker than OpenSSL's behind hashlib. It has no type stubs.
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha256

from penstock.core.errors import BadPreimage, IllegalEvent

_STRIDE = 8  # a chain keeps every 8th hash: an eighth of its memory, for at most one more hash a tick


class TickChain:
    """The payer's side: preimages of a chain of `ticks` hashes over a 32-byte seed that is never used again."""

    __slots__ = ("_block", "_block_start", "_marks", "root", "ticks")

    def __init__(self, seed: bytes, ticks: int) -> None:
        """Costs `ticks` SHA-256 calls."""
        self.ticks = ticks
        value, self._marks = seed, bytearray(seed)
        for _ in range(ticks // _STRIDE):
            for _ in range(_STRIDE):
                value = sha256(value).digest()
            self._marks += value
        for _ in range(ticks % _STRIDE):
            value = sha256(value).digest()
        self.root = value
        self._block: list[bytes] = []  # the hashes from a mark on, as far as they were needed
        self._block_start = -1

    def preimage(self, count: int) -> bytes:
        """The preimage that proves `count` ticks; 0 gives the root. 32 bytes.

        Raises:
            IllegalEvent: the chain does not hold that many ticks.
        """
        if not 0 <= count <= self.ticks:
            raise IllegalEvent(f"a chain of {self.ticks} ticks cannot prove {count}")
        start, offset = divmod(self.ticks - count, _STRIDE)
        if start != self._block_start:
            self._block, self._block_start = [bytes(self._marks[32 * start : 32 * start + 32])], start
        block = self._block
        while len(block) <= offset:
            block.append(sha256(block[-1]).digest())
        return block[offset]


class TickProof:
    """The payee's side: the last preimage that was verified, and how many ticks it proves."""

    __slots__ = ("count", "preimage", "ticks")

    def __init__(self, root: bytes, ticks: int, count: int = 0, preimage: bytes = b"") -> None:
        """Take up at `count` ticks already proven by `preimage` (from our own journal), or at the root."""
        self.ticks = ticks
        self.count = count
        self.preimage = preimage or root

    def advance(self, count: int, preimage: bytes) -> int:
        """Accept that `count` ticks in all are proven by `preimage` (32 bytes).

        Costs one SHA-256 for each tick more than before; refused above the chain's `ticks` before any is made.
        Returns how many ticks are new; 0 for a repetition of the last. Persist the result before counting on it.

        Raises:
            BadPreimage: fewer ticks than before, more than the lock holds, or it does not hash to the last one.
                Nothing has changed.
        """
        fresh = count - self.count
        if not 0 <= fresh <= self.ticks - self.count:
            raise BadPreimage(f"{count} ticks do not follow {self.count} of {self.ticks}")
        if len(preimage) != 32:
            raise BadPreimage("a preimage is 32 bytes")
        value = preimage
        for _ in range(fresh):
            value = sha256(value).digest()
        if value != self.preimage:
            raise BadPreimage(f"the preimage of tick {count} does not hash to that of tick {self.count}")
        self.count = count
        self.preimage = preimage
        return fresh
