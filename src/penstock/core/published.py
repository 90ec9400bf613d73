"""A price series as somebody published it, signed or not: who vouches for the prices that a third party passes on.

A signed series is the object form of `series.py` with three members more:

    {"title": "supply", "issued": "2026-03-01T12:00:00Z", "signature": "0x...", "rates": [...]}

The signature (65 bytes, `identity.py`) is over "penstock/rates/1" and the title, the instant of issue and the prices. A
title keeps one signer's series apart, so that prices for what is fed in are never taken for those of a supply; the
instant keeps an older series from replacing a newer one.
"""

from __future__ import annotations

import msgspec

from penstock.core import series
from penstock.core.errors import BadRates, BadSignature
from penstock.core.identity import Address, Digest, Key, check_signed, purpose_digest, to_hex
from penstock.core.series import Rates
from penstock.core.units import Instant

MAX_TITLE = 80

_json = msgspec.json.Encoder()


class Published(msgspec.Struct, frozen=True):
    """A series with what vouches for it; without a signature `issued` may be 0 and the title empty."""

    rates: Rates
    title: str = ""
    issued: Instant = Instant(0)
    signature: bytes = b""

    def digest(self) -> Digest:
        """What its publisher signs: the prices themselves, whatever the text that they came in."""
        prices = _json.encode((self.rates.scale, self.rates.slots))
        return purpose_digest("penstock/rates/1", self.title.encode(), self.issued.to_bytes(8, "big"), prices)

    def check(self, signer: Address, title: str) -> None:
        """Pass where `signer` published this series under this title.

        Raises:
            BadRates: it did not, or nobody signed.
        """
        if not self.signature:
            raise BadRates("nobody signed these prices", f"they must be signed by {to_hex(signer)}")
        if self.title != title:
            raise BadRates(f"these prices are signed as {self.title!r}, and {title!r} is needed")
        try:
            check_signed(self.digest(), self.signature, signer, "the price series")
        except BadSignature as error:
            raise BadRates(str(error), "do not use these prices") from None


def sign(key: Key, rates: Rates, title: str, issued: Instant) -> Published:
    """The series, signed.

    Raises:
        BadRates: the title is empty, too long or not printable.
    """
    if not 0 < len(title) <= MAX_TITLE or not title.isprintable():
        raise BadRates(f"a series is signed under a title of 1..{MAX_TITLE} printable characters")
    unsigned = Published(rates, title, issued)
    return msgspec.structs.replace(unsigned, signature=key.sign(unsigned.digest()))


def parse(data: bytes) -> Published:
    """Read a series, signed or not; whether the signature is right is for `check` to say.

    Raises:
        BadRates: it is no series, or its title, instant or signature is none.
    """
    found = series.document(data)
    rates = Rates.of(series.slot(row, place) for place, row in enumerate(series.rows(found)))
    if not isinstance(found, dict) or found.get("signature") is None:
        return Published(rates)
    title, signature = found.get("title"), found["signature"]
    if not isinstance(title, str) or not 0 < len(title) <= MAX_TITLE or not title.isprintable():
        raise BadRates(f"a signed series has a title of 1..{MAX_TITLE} printable characters")
    return Published(rates, title, series.instant(found.get("issued")), _signature(signature))


def dump(published: Published) -> bytes:
    """The form that `parse` reads."""
    rates = series.dump(published.rates)
    if not published.signature:
        return rates
    title, issued = _json.encode(published.title).decode(), series.written(published.issued)
    head = f'{{"title":{title},"issued":"{issued}","signature":"{to_hex(published.signature)}","rates":\n'
    return head.encode() + rates.rstrip() + b"}\n"


def _signature(text: object) -> bytes:
    if isinstance(text, str) and len(text) == 132 and text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            pass
    raise BadRates("the series' signature is none", "0x and 130 hexadecimal digits are needed")
