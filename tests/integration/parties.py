"""An opener and a supplier with a channel between them, and a ledger of their own on the node."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from penstock.core.channel import ChannelParams, Close, Voucher
from penstock.core.identity import parse_address
from penstock.core.ports import Filing, SignedClose
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.fees import Fees

OPENER, SUPPLIER = dev_key(0), dev_key(1)
PERIOD = 3_600  # seconds
FOREVER = 2**40


@contextlib.asynccontextmanager
async def ledger_on(manifest: Manifest, confirmations: int = 0, fees: Fees | None = None) -> AsyncIterator[EvmLedger]:
    """The euro's channels on the node, final after so many blocks."""
    contract = parse_address(manifest.contracts["CryptoEuroChannel"])
    ledger = await EvmLedger.connect(manifest.url, contract, manifest.chain_id, confirmations, fees)
    try:
        yield ledger
    finally:
        await ledger.disconnect()


def channel_of(ledger: EvmLedger, counter: int = 0, two_way: bool = True) -> ChannelParams:
    """A channel whose voucher keys are the accounts themselves."""
    opener, supplier = OPENER.address, SUPPLIER.address
    return ChannelParams(ledger.domain, opener, supplier, opener, supplier, PERIOD, two_way, counter)


def filing(params: ChannelParams, amount: int, nonce: int = 1) -> Filing:
    """The opener's voucher to the supplier."""
    voucher = Voucher.over(nonce, amount)
    return Filing(voucher, OPENER.sign(voucher.digest(params)))


def signed_close(params: ChannelParams, opener_balance: int, supplier_balance: int) -> SignedClose:
    """A close that both have signed."""
    close = Close(opener_balance, supplier_balance, FOREVER)
    digest = close.digest(params)
    return SignedClose(params, close, OPENER.sign(digest), SUPPLIER.sign(digest))
