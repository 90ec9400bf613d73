"""What the journal's log holds that its table does not have yet: the newest rows, ready to be laid over older ones."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import msgspec

Rows = dict[bytes, bytes | None]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes | None]])


def pack(rows: Rows) -> bytes:
    """Rows as one entry of the log: a MessagePack array of [key, value], nil for a row that was deleted."""
    return _encoder.encode(list(rows.items()))


def unpack(entry: bytes) -> Rows:
    """The rows of an entry.

    Raises:
        ValueError: it is no entry.
    """
    return dict(_decoder.decode(entry))


class Recent:
    """The rows of the log's entries, in the order of their keys, as one reader has seen them."""

    __slots__ = ("_keys", "_rows", "first", "last")

    def __init__(self) -> None:
        self.first = self.last = 0  # the numbers of the entries seen
        self._rows: Rows = {}
        self._keys: list[bytes] = []

    def begin(self, first: int) -> None:
        """The log begins with entry `first`. All that it had before another one is in the table now."""
        if first != self.first:
            self.first = first
            self._rows.clear()
            self._keys.clear()

    def take(self, number: int, entry: bytes) -> None:
        """The log's next entry.

        Raises:
            ValueError: it is no entry.
        """
        for key, value in unpack(entry).items():
            if key not in self._rows:
                insort(self._keys, key)
            self._rows[key] = value
        self.last = number

    def under(self, prefix: bytes, after: bytes) -> list[tuple[bytes, bytes | None]]:
        """Its rows from `prefix` up to, not including, `after` (b"" is the end of all keys)."""
        end = bisect_left(self._keys, after) if after else len(self._keys)
        return [(key, self._rows[key]) for key in self._keys[bisect_left(self._keys, prefix) : end]]


def laid_over(
    newer: Iterable[tuple[bytes, bytes | None]], older: Iterable[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """Rows in the order of their keys; where both have a key, the newer one counts, and None leaves it out."""
    waiting = iter(newer)
    next_ = next(waiting, None)
    if next_ is None:
        yield from older
        return
    for key, value in older:
        while next_ is not None and next_[0] < key:
            if next_[1] is not None:
                yield next_[0], next_[1]
            next_ = next(waiting, None)
        if next_ is None or next_[0] != key:
            yield key, value
    while next_ is not None:
        if next_[1] is not None:
            yield next_[0], next_[1]
        next_ = next(waiting, None)
