"""Everything that is signed about a stream channel, each in a situation on the chain in which it is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from penstock.core.channel import (
    Answer,
    ChannelParams,
    Close,
    Lock,
    Release,
    SignedAddition,
    SignedOpening,
    Voucher,
    Withdrawal,
    authorization_nonce,
)
from penstock.core.codec import encode
from penstock.core.identity import Digest, Key
from penstock.core.ports import Authorization, Filing, SignedClose, SignedVoucher
from penstock.core.units import Amount
from penstock.rails.stream import StreamTerms, VoucherNote
from penstock.testing.rail import Signed

from .fields import Fields, channel_of, flat, of
from .ground import CONSUMER, STRANGER, SUPPLIER
from .tokens import transfer_digest

if TYPE_CHECKING:
    from .stream import StreamSetup

DEPOSIT, FOREVER = 50_000, 2**40
LOCK = Lock(b"\x11" * 32, 700, 5)
VOUCHER = Voucher.over(3, 1_400, (LOCK,))
Make = Callable[[], Awaitable[Signed]]


def signed(setup: StreamSetup) -> Mapping[str, Make]:
    """By name, what makes each."""
    makers = _Papers(setup)
    return {
        "voucher to the payee": makers.voucher_taken,
        "voucher in a challenge": makers.voucher_filed,
        "voucher that is claimed": makers.voucher_claimed,
        "close by the opener": lambda: makers.close(False),
        "close by the partner": lambda: makers.close(True),
        "withdrawal by the opener": lambda: makers.withdrawal(False),
        "withdrawal by the partner": lambda: makers.withdrawal(True),
        "release": makers.release,
        "answer": makers.answer,
        "leave to show a release": makers.leave,
        "opening": makers.opening,
        "addition": makers.addition,
        "authorization": makers.authorization,
    }


class _Papers:
    def __init__(self, setup: StreamSetup) -> None:
        from .stream import CONSUMER_KEY, SUPPLIER_KEY

        self._setup, self._ledger = setup, setup.ground.channels
        self._keys = (CONSUMER_KEY, SUPPLIER_KEY)

    async def _open(self, closing: bool = False) -> ChannelParams:
        params = self._setup.params()
        await self._ledger.open(CONSUMER, params, Amount(DEPOSIT))
        if closing:
            await self._ledger.close(CONSUMER, params, None)
        return params

    def _thing(
        self,
        params: ChannelParams,
        parts: tuple[msgspec.Struct, ...],
        digest: Callable[[Fields], Digest],
        signer: Key,
        give: Callable[[Fields, bytes], Awaitable[object]],
    ) -> Signed:
        fields = flat(params, *parts)

        async def state() -> object:
            holdings = [await self._ledger.holdings(key.address) for key in (CONSUMER, SUPPLIER)]
            filed = [await self._ledger.filed(params, partner) for partner in (False, True)]
            return [(one.wallet, one.balance) for one in holdings], filed, await self._ledger.channel(params)

        async def give_it(fields: Fields, signature: bytes) -> None:
            await give(fields, signature)

        return Signed(fields, digest, signer.sign(digest(fields)), signer.address, give_it, state)

    async def voucher_taken(self) -> Signed:
        params = await self._open()
        made = self._setup.payee
        end = made(StreamTerms(params, 0, 0, 700), DEPOSIT)

        async def give(fields: Fields, signature: bytes) -> None:
            note = VoucherNote(of(Voucher, fields), signature, (LOCK,))
            if channel_of(fields) == params:
                end.take(b"\x02" + encode(note))
            else:
                made(StreamTerms(channel_of(fields), 0, 0, 700), DEPOSIT).take(b"\x02" + encode(note))

        async def state() -> object:
            return end.secured, end.state()

        fields, signer = flat(params, VOUCHER), self._keys[0]
        signature = signer.sign(_voucher_digest(fields))
        return Signed(fields, _voucher_digest, signature, signer.address, give, state, on_ledger=False)

    async def voucher_filed(self) -> Signed:
        async def give(fields: Fields, signature: bytes) -> object:
            filing = Filing(of(Voucher, fields), signature, (LOCK,), ((0, b""),))
            return await self._ledger.file(SUPPLIER, channel_of(fields), filing)

        return self._thing(await self._open(closing=True), (VOUCHER,), _voucher_digest, self._keys[0], give)

    async def voucher_claimed(self) -> Signed:
        async def give(fields: Fields, signature: bytes) -> object:
            row = SignedVoucher(channel_of(fields), of(Voucher, fields), signature)
            return await self._ledger.claim(SUPPLIER, row)

        return self._thing(await self._open(), (VOUCHER,), _voucher_digest, self._keys[0], give)

    async def close(self, partner: bool) -> Signed:
        close = Close(DEPOSIT - 900, 900, FOREVER)
        params = await self._open()
        other = self._keys[not partner].sign(close.digest(params))

        async def give(fields: Fields, signature: bytes) -> object:
            both = (other, signature) if partner else (signature, other)
            row = SignedClose(channel_of(fields), of(Close, fields), *both)
            return await self._ledger.close_together(STRANGER, [row])

        def digest(fields: Fields) -> Digest:
            return Digest(of(Close, fields).digest(channel_of(fields)))

        return self._thing(params, (close,), digest, self._keys[partner], give)

    async def withdrawal(self, partner: bool) -> Signed:
        withdrawal = Withdrawal(300, 900, FOREVER)
        params = await self._open()
        other = self._keys[not partner].sign(withdrawal.digest(params))

        async def give(fields: Fields, signature: bytes) -> object:
            both = (other, signature) if partner else (signature, other)
            return await self._ledger.withdraw_together(STRANGER, channel_of(fields), of(Withdrawal, fields), *both)

        def digest(fields: Fields) -> Digest:
            return Digest(of(Withdrawal, fields).digest(channel_of(fields)))

        return self._thing(params, (withdrawal,), digest, self._keys[partner], give)

    async def release(self) -> Signed:
        async def give(fields: Fields, signature: bytes) -> object:
            return await self._ledger.release(CONSUMER, channel_of(fields), True, of(Release, fields), signature)

        def digest(fields: Fields) -> Digest:
            return Digest(of(Release, fields).digest(channel_of(fields)))

        return self._thing(await self._open(closing=True), (Release(4, 2_100),), digest, self._keys[1], give)

    async def answer(self) -> Signed:
        """The payee's leave for a stranger; the voucher that it names is the payer's own, whatever it says."""
        params = await self._open(closing=True)

        async def give(fields: Fields, consent: bytes) -> object:
            voucher = of(Voucher, fields)
            filing = Filing(voucher, self._keys[0].sign(voucher.digest(params)), (LOCK,), ((0, b""),))
            where = channel_of(fields)
            return await self._ledger.answer(STRANGER, where, True, filing, fields["sequence"], consent)

        def digest(fields: Fields) -> Digest:
            where = channel_of(fields)
            return Answer(of(Voucher, fields).content(where), fields["sequence"]).digest(where)

        thing = self._thing(params, (VOUCHER, Answer(b"", 7)), digest, self._keys[1], give)
        del thing.fields["content"]  # which the voucher's fields make
        return thing

    async def leave(self) -> Signed:
        """The payer's leave for a stranger; the release that it names is the payee's own, whatever it says."""
        params = await self._open(closing=True)

        async def give(fields: Fields, consent: bytes) -> object:
            release = of(Release, fields)
            own = self._keys[1].sign(release.digest(params))
            return await self._ledger.release(STRANGER, channel_of(fields), True, release, own, consent)

        def digest(fields: Fields) -> Digest:
            where = channel_of(fields)
            return Answer(of(Release, fields).content(where), 0).digest(where)

        return self._thing(params, (Release(4, 2_100),), digest, self._keys[0], give)

    async def opening(self) -> Signed:
        async def give(fields: Fields, signature: bytes) -> object:
            return await self._ledger.open_signed(SUPPLIER, channel_of(fields), of(SignedOpening, fields), signature)

        def digest(fields: Fields) -> Digest:
            return Digest(of(SignedOpening, fields).digest(channel_of(fields)))

        await self._ledger.deposit(CONSUMER, Amount(2 * DEPOSIT))
        return self._thing(self._setup.params(), (SignedOpening(DEPOSIT, 100, FOREVER),), digest, CONSUMER, give)

    async def addition(self) -> Signed:
        async def give(fields: Fields, signature: bytes) -> object:
            addition = of(SignedAddition, fields)
            return await self._ledger.add_signed(SUPPLIER, channel_of(fields), CONSUMER.address, addition, signature)

        def digest(fields: Fields) -> Digest:
            return Digest(of(SignedAddition, fields).digest(channel_of(fields)))

        await self._ledger.deposit(CONSUMER, Amount(2 * DEPOSIT))
        return self._thing(await self._open(), (SignedAddition(DEPOSIT + 50, 100, FOREVER),), digest, CONSUMER, give)

    async def authorization(self) -> Signed:
        separator = await self._separator()

        async def give(fields: Fields, signature: bytes) -> object:
            authorization = of(Authorization, {**fields, "signature": signature})
            return await self._ledger.open_authorized(SUPPLIER, channel_of(fields), authorization)

        def digest(fields: Fields) -> Digest:
            params = channel_of(fields)
            nonce = authorization_nonce(params, fields["deposit"], fields["fee"])
            value, times = fields["deposit"] + fields["fee"], (fields["valid_after"], fields["valid_before"])
            return transfer_digest(separator, CONSUMER.address, params.domain.contract, value, *times, nonce)

        authorization = Authorization(Amount(DEPOSIT), Amount(100), 1, FOREVER, b"")
        thing = self._thing(self._setup.params(), (authorization,), digest, CONSUMER, give)
        del thing.fields["signature"]
        return thing

    async def _separator(self) -> bytes:
        return await self._setup.ground.token_separator()


def _voucher_digest(fields: Fields) -> Digest:
    return Digest(of(Voucher, fields).digest(channel_of(fields)))
