"""What a comparison needs of each rail: where it settles on a devnet, and its acting halves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from penstock.core.identity import Key
from penstock.core.ports import Journal, Mined
from penstock.core.units import Instant
from penstock.ledgers.contract import Contract
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.jsonrpc import Node
from penstock.node import book, ending, escrow_ending
from penstock.node.channel_purse import ChannelPurse
from penstock.node.channel_till import ChannelTill
from penstock.node.escrow_purse import EscrowPurse
from penstock.node.escrow_till import EscrowTill
from penstock.node.rails import Purse, Till
from penstock.node.tell import Tell

PERIOD = 3_600  # seconds, of a channel's challenge


Collect = Callable[[Journal, Any, Key, Node], Awaitable[list[Mined]]]
Entropy = Callable[[int], bytes]


class Parts(NamedTuple):
    """One rail. `contract` is its name in a devnet's manifest, `flag` that of the command line, `artifact` its build.

    `collect(journal, ledger, key, node)` has the payee paid without the consumer, `leave` gives the payer the rest
    without the supplier. Both let the devnet's time pass where they have to wait.
    """

    contract: str
    flag: str
    artifact: str
    ledger: type[Contract]
    till: Callable[[Key, Journal, Any, Callable[[], Instant], Tell, Entropy], Till]
    purse: Callable[[Key, Journal, Callable[[], Awaitable[Any]], Tell], Purse]
    collect: Collect
    leave: Collect


async def _close(journal: Journal, ledger: EvmLedger, key: Key, node: Node) -> list[Mined]:
    """Close each channel with the voucher and the ticks that it was paid; nobody else could file anything."""
    return [one for row in book.channels(journal) for one in (await ending.close(journal, ledger, key, row))[0]]


async def _close_and_wait(journal: Journal, ledger: EvmLedger, key: Key, node: Node) -> list[Mined]:
    """Close each channel as its payer, and settle it after the challenge period, in which nobody answers."""
    mined: list[Mined] = []
    for row in book.channels(journal):
        mined += (await ending.close(journal, ledger, key, row))[0]
        await _pass(node, row.params.period)
        mined += (await ending.settle(journal, ledger, key, book.channel_of(journal, row.params.id) or row))[0]
    return mined


async def _claim(journal: Journal, ledger: EvmEscrows, key: Key, node: Node) -> list[Mined]:
    """File each escrow's last reading, and take what it releases once the payer's window is over."""
    mined: list[Mined] = []
    for row in book.escrows(journal):
        if (await ledger.escrow(row.params)).status == "open":
            mined += (await escrow_ending.settle(journal, ledger, key, row))[0]
        if (await ledger.escrow(row.params)).status == "ending":
            await _pass(node, row.params.window)
            kept = book.escrow_of(journal, row.params.id) or row
            mined += (await escrow_ending.settle(journal, ledger, key, kept))[0]
    return mined


async def _wait(journal: Journal, ledger: EvmEscrows, key: Key, node: Node) -> list[Mined]:
    """Take back what each escrow has not released, after its deadline."""
    mined: list[Mined] = []
    for row in book.escrows(journal):
        await _pass(node, row.params.deadline - await ledger.now())
        mined += (await escrow_ending.settle(journal, ledger, key, row))[0]
    return mined


async def _pass(node: Node, seconds: int) -> None:
    """Let so much of the devnet's time pass."""
    await node.ask("evm_increaseTime", seconds)
    await node.ask("evm_mine")


PARTS: dict[str, Parts] = {
    ChannelTill.name: Parts(
        "CryptoEuroChannel", "--contract", "Channel", EvmLedger,
        lambda key, journal, ledger, clock, tell, entropy: ChannelTill(
            key, journal, ledger, clock, tell, entropy=entropy
        ),
        lambda key, journal, ledger, tell: ChannelPurse(key, journal, ledger, tell, period=PERIOD),
        _close, _close_and_wait,
    ),
    EscrowTill.name: Parts(
        "CryptoEuroEscrow", "--escrow", "Escrow", EvmEscrows,
        lambda key, journal, ledger, clock, tell, entropy: EscrowTill(
            key, journal, ledger, clock, tell, entropy=entropy
        ),
        EscrowPurse, _claim, _wait,
    ),
}  # fmt: skip
"""Every rail that settles on a chain that a devnet can be."""
