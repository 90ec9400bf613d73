"""What a filing must show before the simulated contract takes it: the payer's signature, the locks, the ticks."""

from __future__ import annotations

from penstock.core.channel import ChannelParams, LockTree, locks_root
from penstock.core.identity import Address, check_signed
from penstock.core.ports import Filing
from penstock.sim.chain import Accounts
from penstock.sim.model import Proof, require


def finish(accounts: Accounts, params: ChannelParams, filing: Filing, now: int) -> None:
    """The payee of a one-way channel files all that it has, and is paid."""
    check_filing(params, 1, filing)
    accounts.pay(params, lambda channel: channel.finish(filing.voucher, filing.locks, proofs_of(filing), now))


def close_alone(accounts: Accounts, params: ChannelParams, filing: Filing, now: int) -> None:
    """The partner of a two-way channel closes it with all that it has, and nobody else files anything."""
    check_filing(params, 1, filing)
    channel = accounts.channel(params)
    channel.close(now)
    channel.file(1, filing.voucher, filing.locks, now)
    if any(count for count, _ in filing.proofs):
        channel.prove(1, proofs_of(filing), now)
    accounts.pay(params, lambda channel: channel.settle(channel.closes_at))


def check_filing(params: ChannelParams, party: int, filing: Filing) -> None:
    check_signed(filing.voucher.digest(params), filing.signature, keys_of(params)[1 - party], "the voucher")
    require(filing.voucher.locks_root == locks_root(filing.locks))


def proofs_of(filing: Filing) -> list[Proof]:
    tree = LockTree(filing.locks)
    return [
        Proof(index, lock, count, preimage, tuple(tree.branch(index)))
        for index, (lock, (count, preimage)) in enumerate(zip(filing.locks, filing.proofs, strict=False))
        if count
    ]


def party_of(params: ChannelParams, caller: Address) -> int:
    require(caller in (params.opener, params.partner))
    return int(caller == params.partner)


def keys_of(params: ChannelParams) -> tuple[Address, Address]:
    return params.opener_key, params.partner_key
