"""What a payer of hop locks does where its channel closes on the ledger: see what was proven, and answer."""

from __future__ import annotations

from penstock.core.channel import Release
from penstock.core.hops import Outgoing, OutLock
from penstock.core.identity import Key, to_hex
from penstock.core.ports import ChannelState, Ledger, ProvenTicks
from penstock.node.tell import Tell


async def shown(ledger: Ledger, out: Outgoing) -> list[tuple[int, OutLock, ProvenTicks]]:
    """The ticks of our locks that the payee has proven on the ledger, with the locks' numbers.

    Raises:
        LedgerError: it does not say.
    """
    return [
        (number, lock, proof)
        for proof in await ledger.proven(out.params)
        for number, lock in out.all.items()
        if lock.lock.root == proof.root and proof.count <= lock.lock.ticks
    ]


async def answer(ledger: Ledger, key: Key, out: Outgoing, state: ChannelState, tell: Tell) -> None:
    """Hold the payee to its release where it filed an older voucher, and take our rest when the time has come.

    Raises:
        LedgerError: it does not take that.
    """
    if state.status != "closing":
        return
    filed, params, row = await ledger.filed(out.params, True), out.params, out.row
    now = await ledger.now()
    current = {bytes(32), row.root, row.voucher.locks_root}  # without locks there is nothing to void
    if filed.locks_root not in current and row.release and now < state.closes_at:
        release = Release(row.released, row.amount)  # again, where a reorganisation took it out of the chain
        mined = await ledger.release(key, params, True, release, row.release)
        tell("held to its release", channel=to_hex(params.id), gas=sum(one.gas for one in mined))
        return
    live = filed.locked if now < (filed.locked_until or state.closes_at) else 0
    if now >= state.closes_at and state.opener_deposit - filed.amount - live > state.opener_drawn:
        await ledger.settle(key, params)
