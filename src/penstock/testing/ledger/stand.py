"""A ledger as the kit takes it, and what its checks share: channels, papers, and what must be refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Protocol

from penstock.core.channel import (
    ChannelParams,
    Close,
    Lock,
    Voucher,
)
from penstock.core.errors import PenstockError
from penstock.core.identity import Key
from penstock.core.ports import ChannelState, Filing, Ledger, SignedClose, SignedVoucher
from penstock.core.units import Amount

WALLET = 1_000_000  # token units that each party has at least, in its wallet
DEPOSIT = Amount(10_000)
PERIOD = 3_600  # seconds
FOREVER = 2**40
DEEP, BLOCKS = 600, 60  # seconds until what was mined must count, and how often we look
OPENER_KEY, PARTNER_KEY = Key(b"\x0c" * 32), Key(b"\x0d" * 32)
SEED = b"\x0e" * 32


class Stand(Protocol):
    """A ledger on which nothing has happened yet, and who is on it.

    Opener, partner and stranger have at least WALLET token units each in their wallets, nothing in the contract, and
    what they need to send transactions.
    """

    opener: Key
    partner: Key
    stranger: Key

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        ...

    async def wait(self, seconds: int) -> None:
        """Let so much of the ledger's time pass."""
        ...

    async def lose(self) -> None:
        """From now on the ledger's node does not answer."""
        ...


Check = Callable[[Stand], Awaitable[None]]


def channel_of(stand: Stand, counter: int = 0) -> ChannelParams:
    """A one-way channel from opener to partner."""
    keys = OPENER_KEY.address, PARTNER_KEY.address
    parties = stand.opener.address, stand.partner.address
    return ChannelParams(stand.ledger.domain, *parties, *keys, PERIOD, False, counter)


async def deep(stand: Stand, params: ChannelParams, *status: str, **sums: int) -> ChannelState:
    """The channel's state, once it is that: what it has counts when it is deep enough in the chain to be final."""
    state = await stand.ledger.channel(params)
    for _ in range(BLOCKS):
        if state.status in status and all(getattr(state, name) == sum_ for name, sum_ in sums.items()):
            return state
        await stand.wait(DEEP // BLOCKS)
        state = await stand.ledger.channel(params)
    raise AssertionError(f"the channel is {state}, and not {' or '.join(status)} with {sums}, after {DEEP} s")


async def opened(stand: Stand, counter: int = 0) -> ChannelParams:
    params = channel_of(stand, counter)
    await stand.ledger.open(stand.opener, params, DEPOSIT)
    await deep(stand, params, "open", opener_deposit=DEPOSIT)
    return params


def chain_of(ticks: int) -> bytes:
    link = SEED
    for _ in range(ticks):
        link = sha256(link).digest()
    return link


LOCK = Lock(chain_of(10), 100, 10)


def filing_of(params: ChannelParams, nonce: int, amount: int, ticks: int | None = None) -> Filing:
    """A voucher, with a lock of ten ticks under it where `ticks` says how many of them are proven."""
    locks = () if ticks is None else (LOCK,)
    voucher = Voucher.over(nonce, amount, locks)
    proofs = () if ticks is None else ((ticks, chain_of(10 - ticks) if ticks else b""),)
    return Filing(voucher, OPENER_KEY.sign(voucher.digest(params)), locks, proofs)


def voucher_of(params: ChannelParams, amount: int, key: Key = OPENER_KEY) -> SignedVoucher:
    voucher = Voucher.over(1, amount)
    return SignedVoucher(params, voucher, key.sign(voucher.digest(params)))


def close_of(params: ChannelParams, partner_balance: int, key: Key = PARTNER_KEY, expiry: int = FOREVER) -> SignedClose:
    close = Close(DEPOSIT - partner_balance, partner_balance, expiry)
    digest = close.digest(params)
    return SignedClose(params, close, OPENER_KEY.sign(digest), key.sign(digest))


async def wealth(stand: Stand) -> list[int]:
    """What opener, partner and stranger have outside channels."""
    keys = (stand.opener, stand.partner, stand.stranger)
    return [(await stand.ledger.holdings(key.address)).tokens for key in keys]


async def view(stand: Stand, params: ChannelParams) -> object:
    return await wealth(stand), await stand.ledger.filed(params, True), await stand.ledger.channel(params)


async def refused(stand: Stand, params: ChannelParams, what: str, call: Awaitable[Any]) -> PenstockError:
    """The error of what must be refused, and change nothing."""
    before = await view(stand, params)
    try:
        await call
    except PenstockError as error:
        assert await view(stand, params) == before, f"{what} was refused, and has changed something"
        return error
    raise AssertionError(f"{what} was taken")


@asynccontextmanager
async def gaining(stand: Stand, *gains: int) -> AsyncIterator[None]:
    """What happens in here gives opener, partner and stranger so much, outside channels."""
    before = await wealth(stand)
    yield
    got = tuple(now - then for now, then in zip(await wealth(stand), before, strict=True))
    assert got == gains, f"opener, partner and stranger gained {got}, not {gains}"
