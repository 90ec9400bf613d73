"""A node's way to the simulated chain (`core.ports.Ledger`): slow, out of reach for a while, or in order.

What a call needs signed is checked when its transaction is mined, as the contract does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.core.channel import (
    APART,
    Answer,
    ChannelParams,
    Domain,
    Release,
    SignedAddition,
    SignedOpening,
    Withdrawal,
    authorization_nonce,
    lock_branch,
    locks_root,
)
from penstock.core.errors import LedgerUnreachable, OutOfFunds, PenstockError, TransactionFailed, WrongLedger
from penstock.core.identity import Address, Digest, Key, check_signed, purpose_digest, to_hex
from penstock.core.ports import (
    Authorization,
    Batch,
    ChannelState,
    Filed,
    Filing,
    Holdings,
    Mined,
    SignedClose,
    SignedVoucher,
    TokenFacts,
)
from penstock.core.units import Amount
from penstock.sim.chain import Accounts, Act, Block, Chain, Transaction
from penstock.sim.life import Life
from penstock.sim.model import Channel, Forbidden, Proof, require

DEADLINE = 180.0  # seconds until a transaction that is in no block is given up, as with a real node
ETHER = 10**18
GAS_PRICE = 10**9


class SimLedger:
    """One party's view of the chain."""

    def __init__(self, chain: Chain, domain: Domain, life: Life, delay: Callable[[], float]) -> None:
        self.domain = domain
        self.out_of_reach = False
        self._chain, self._life, self._delay = chain, life, delay

    # Asking

    async def now(self) -> int:
        return (await self._head()).time

    async def token(self) -> TokenFacts:
        return TokenFacts("SIM", 6)

    async def genuine(self) -> bool:
        return True

    async def channel(self, params: ChannelParams) -> ChannelState:
        await self._head()
        self._check(params)
        state = _state(self._chain.head.accounts, params)
        if state.status != "open":
            return state
        deep = _state(self._chain.final.accounts, params)
        if deep.status != "open":
            return deep
        return ChannelState(
            "open",
            min(state.opener_deposit, deep.opener_deposit),
            min(state.partner_deposit, deep.partner_deposit),
            0,
            max(state.opener_drawn, deep.opener_drawn),
            max(state.partner_drawn, deep.partner_drawn),
        )

    async def final(self, params: ChannelParams) -> bool:
        await self._head()
        return all(
            _state(block.accounts, params).status == "settled" for block in (self._chain.head, self._chain.final)
        )

    async def filed(self, params: ChannelParams, partner: bool) -> Filed:
        accounts = (await self._head()).accounts
        self._check(params)
        state, channel = _state(accounts, params), accounts.channels.get(params.id)
        filed = channel.sides[int(partner)].filed if channel else None
        if channel is None or filed is None:
            return Filed(state)
        return Filed(
            state,
            True,
            channel.sides[int(partner)].itself,
            Amount(filed.least()),
            Amount(filed.rest),
            filed.until,
            locks_root(filed.locks),
        )

    async def holdings(self, owner: Address) -> Holdings:
        accounts = (await self._head()).accounts
        return Holdings(Amount(accounts.wallets[owner]), Amount(accounts.balances[owner]), ETHER)

    async def next_counter(self, opener: Address) -> int:
        head = await self._head()
        if head.accounts.balances[opener]:
            return head.accounts.counters[opener]
        return self.fresh_counter()

    def fresh_counter(self) -> int:
        return APART + int(asyncio.get_running_loop().time() * 1000)

    async def gas_price(self) -> int:
        return GAS_PRICE

    # Opening

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        accounts = (await self._head()).accounts
        mined: list[Mined] = []
        wallet, balance = accounts.wallets[key.address], accounts.balances[key.address]
        if wallet + balance < deposit:
            raise OutOfFunds(f"{to_hex(key.address)} has {wallet + balance} token units, {deposit} are needed")
        if balance < deposit and wallet < deposit:
            mined = await self.withdraw(key, Amount(balance))

        def act(accounts: Accounts, _: int) -> None:
            purse = accounts.balances if accounts.balances[key.address] >= deposit else accounts.wallets
            accounts.take(purse, key.address, deposit)
            accounts.open(params, deposit)

        return mined + await self._send(key, params, "open", act)

    async def open_signed(
        self, key: Key, params: ChannelParams, opening: SignedOpening, signature: bytes
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            require(now <= opening.expiry)
            check_signed(opening.digest(params), signature, params.opener, "the opening")
            accounts.take(accounts.balances, params.opener, opening.deposit + opening.fee)
            accounts.open(params, opening.deposit)
            accounts.balances[key.address] += opening.fee

        return await self._send(key, params, "open signed", act)

    async def authorize(
        self, key: Key, params: ChannelParams, deposit: Amount, fee: Amount, valid_before: int
    ) -> Authorization:
        if (await self.holdings(key.address)).wallet < deposit + fee:
            raise OutOfFunds(f"the wallet does not hold {deposit + fee}")
        signature = key.sign(_authorization(params, deposit, fee, 0, valid_before))
        return Authorization(deposit, fee, 0, valid_before, signature)

    async def open_authorized(self, key: Key, params: ChannelParams, authorization: Authorization) -> list[Mined]:
        deposit, fee = authorization.deposit, authorization.fee
        after, before = authorization.valid_after, authorization.valid_before

        def act(accounts: Accounts, now: int) -> None:
            nonce = authorization_nonce(params, deposit, fee)
            require(after < now < before and nonce not in accounts.used)
            digest = _authorization(params, deposit, fee, after, before)
            check_signed(digest, authorization.signature, params.opener, "the authorization")
            accounts.used |= {nonce}
            accounts.take(accounts.wallets, params.opener, deposit + fee)
            accounts.open(params, deposit)
            accounts.balances[key.address] += fee

        return await self._send(key, params, "open authorized", act)

    async def add(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        def act(accounts: Accounts, _: int) -> None:
            purse = accounts.balances if accounts.balances[key.address] >= deposit else accounts.wallets
            accounts.take(purse, key.address, deposit)
            accounts.channel(params).add(_party(params, key.address), deposit)

        return await self._send(key, params, "add", act)

    async def add_signed(
        self, key: Key, params: ChannelParams, owner: Address, addition: SignedAddition, signature: bytes
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            require(now <= addition.expiry)
            check_signed(addition.digest(params), signature, owner, "the addition")
            channel, party = accounts.channel(params), _party(params, owner)
            amount = addition.total - channel.deposits[party]
            require(amount > 0)
            accounts.take(accounts.balances, owner, amount + addition.fee)
            channel.add(party, amount)
            accounts.balances[key.address] += addition.fee

        return await self._send(key, params, "add signed", act)

    # Paying out of an open channel

    async def claim(self, key: Key, row: SignedVoucher) -> list[Mined]:
        def act(accounts: Accounts, _: int) -> None:
            require(key.address == row.params.partner)
            check_signed(row.voucher.digest(row.params), row.signature, row.params.opener_key, "the voucher")
            accounts.pay(row.params, lambda channel: channel.claim(row.voucher.amount))

        return await self._send(key, row.params, "claim", act)

    async def claim_many(self, key: Key, rows: list[SignedVoucher]) -> Batch:
        batch = Batch([], {})
        for row in rows:
            try:
                batch.mined.extend(await self.claim(key, row))
            except TransactionFailed as error:
                batch.skipped[row.params.id] = str(error)
        return batch

    async def withdraw_together(
        self,
        key: Key,
        params: ChannelParams,
        withdrawal: Withdrawal,
        opener_signature: bytes,
        partner_signature: bytes,
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            require(now <= withdrawal.expiry)
            digest = withdrawal.digest(params)
            check_signed(digest, opener_signature, params.opener_key, "the withdrawal")
            check_signed(digest, partner_signature, params.partner_key, "the withdrawal")
            totals = withdrawal.opener_total, withdrawal.partner_total
            accounts.pay(params, lambda channel: channel.withdraw(*totals))

        return await self._send(key, params, "withdraw together", act)

    # Ending

    async def close_together(self, key: Key, rows: list[SignedClose]) -> list[Mined]:
        def one(accounts: Accounts, row: SignedClose, now: int) -> None:
            require(now <= row.close.expiry)
            digest = row.close.digest(row.params)
            check_signed(digest, row.opener_signature, row.params.opener_key, "the close")
            check_signed(digest, row.partner_signature, row.params.partner_key, "the close")
            totals = row.close.opener_balance, row.close.partner_balance
            accounts.pay(row.params, lambda channel: channel.close_together(*totals))

        def act(accounts: Accounts, now: int) -> None:
            for row in rows:
                try:
                    one(accounts, row, now)
                except (Forbidden, PenstockError):
                    if len(rows) == 1:
                        raise

        return await self._send(key, rows[0].params, f"close of {len(rows)} channels", act)

    async def close(self, key: Key, params: ChannelParams, filing: Filing | None) -> list[Mined]:
        if filing is not None:
            return await self._file(key, params, filing, begin=True)

        def act(accounts: Accounts, now: int) -> None:
            _party(params, key.address)
            accounts.channel(params).close(now)

        return await self._send(key, params, "close", act)

    async def file(self, key: Key, params: ChannelParams, filing: Filing) -> list[Mined]:
        return await self._file(key, params, filing, begin=False)

    async def _file(self, key: Key, params: ChannelParams, filing: Filing, begin: bool) -> list[Mined]:
        if not params.two_way and key.address == params.partner and not any(lock.expiry for lock in filing.locks):
            return await self._send(key, params, "finish", lambda accounts, now: finish(accounts, params, filing, now))

        def act(accounts: Accounts, now: int) -> None:
            party, channel = _party(params, key.address), accounts.channel(params)
            _check_filing(params, party, filing)
            if begin:
                channel.close(now)
            channel.file(party, filing.voucher, filing.locks, now)
            channel.prove(party, _proofs(filing), now)

        return await self._send(key, params, "file", act)

    async def answer(
        self, key: Key, params: ChannelParams, partner: bool, filing: Filing, sequence: int, consent: bytes
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            party, channel = int(partner), accounts.channel(params)
            _check_filing(params, party, filing)
            digest = Answer(filing.voucher.content(params), sequence).digest(params)
            check_signed(digest, consent, _keys(params)[party], "the answer")
            channel.answer(party, filing.voucher, filing.locks, sequence, now)
            channel.prove(party, _proofs(filing), now)

        return await self._send(key, params, "answer", act)

    async def prove(self, key: Key, params: ChannelParams, partner: bool, filing: Filing) -> list[Mined]:
        accounts, party = (await self._head()).accounts, int(partner)
        filed = accounts.channels[params.id].sides[party].filed if params.id in accounts.channels else None
        fresh = [proof for proof in _proofs(filing) if filed and proof.count > filed.proven.get(proof.index, 0)]
        if not fresh:
            return []
        return await self._send(
            key, params, "prove", lambda accounts, now: accounts.channel(params).prove(party, fresh, now)
        )

    async def release(
        self,
        key: Key,
        params: ChannelParams,
        partner: bool,
        release: Release,
        signature: bytes,
        consent: bytes | None = None,
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            party = int(partner)
            check_signed(release.digest(params), signature, _keys(params)[party], "the release")
            if key.address != (params.opener, params.partner)[1 - party]:
                leave = Answer(release.content(params), 0).digest(params)
                check_signed(leave, consent or b"", _keys(params)[1 - party], "the answer")
            accounts.channel(params).release(party, release.nonce, release.amount, now)

        return await self._send(key, params, "release", act)

    async def settle(self, key: Key, params: ChannelParams) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            accounts.pay(params, lambda channel: channel.settle(now))

        return await self._send(key, params, "settle", act)

    # Balances

    async def deposit(self, key: Key, amount: Amount) -> list[Mined]:
        def act(accounts: Accounts, _: int) -> None:
            accounts.take(accounts.wallets, key.address, amount)
            accounts.balances[key.address] += amount

        return await self._send(key, None, "deposit", act)

    async def withdraw(self, key: Key, amount: Amount) -> list[Mined]:
        def act(accounts: Accounts, _: int) -> None:
            accounts.take(accounts.balances, key.address, amount)
            accounts.wallets[key.address] += amount

        return await self._send(key, None, "withdraw", act)

    async def disconnect(self) -> None:
        """There is nothing to drop."""

    # The way to the chain

    async def _head(self) -> Block:
        await asyncio.sleep(self._delay())
        if self.out_of_reach or not self._life.alive:
            await asyncio.sleep(5.0)
            raise LedgerUnreachable("the ledger's node does not answer", "start it, or name another")
        return self._chain.head

    def _check(self, params: ChannelParams) -> None:
        if params.domain != self.domain:
            raise WrongLedger("the channel is on another ledger")

    async def _send(self, key: Key, params: ChannelParams | None, what: str, act: Act) -> list[Mined]:
        """Send a transaction that would be taken now, and wait until it is in the chain."""
        if params is not None:
            self._check(params)
        head = await self._head()
        try:
            act(head.accounts.copy(), max(head.time + 1, head.time))
        except (Forbidden, PenstockError) as error:
            raise TransactionFailed(f"{what} is refused by the contract: {error}", reason="forbidden") from None
        if not self._life.boundary():
            raise LedgerUnreachable("the process is gone")
        sent = self._chain.submit(what, key.address, act)
        self._life.boundary()
        return [await self._mined(sent)]

    async def _mined(self, sent: Transaction) -> Mined:
        for _ in range(int(DEADLINE)):
            await asyncio.sleep(1.0)
            if sent.block is None or self.out_of_reach:
                continue
            if sent.failed:
                raise TransactionFailed(f"{sent.what} was reverted in its block", "the state changed; try again")
            return Mined(sent.what, sent.hash, 21_000, sent.block)
        raise LedgerUnreachable(f"{sent.what} is not mined after {DEADLINE:.0f} s", "it may still be")


def finish(accounts: Accounts, params: ChannelParams, filing: Filing, now: int) -> None:
    """The payee of a one-way channel files all that it has, and is paid."""
    _check_filing(params, 1, filing)
    accounts.pay(params, lambda channel: channel.finish(filing.voucher, filing.locks, _proofs(filing), now))


def _check_filing(params: ChannelParams, party: int, filing: Filing) -> None:
    check_signed(filing.voucher.digest(params), filing.signature, _keys(params)[1 - party], "the voucher")
    require(filing.voucher.locks_root == locks_root(filing.locks))


def _proofs(filing: Filing) -> list[Proof]:
    return [
        Proof(index, lock, count, preimage, tuple(lock_branch(filing.locks, index)))
        for index, (lock, (count, preimage)) in enumerate(zip(filing.locks, filing.proofs, strict=False))
        if count
    ]


def _state(accounts: Accounts, params: ChannelParams) -> ChannelState:
    channel: Channel | None = accounts.channels.get(params.id)
    if channel is None:
        return ChannelState("absent")
    opener, partner = channel.deposits
    if channel.status == "ended":
        return ChannelState("settled")
    drawn = Amount(channel.paid[0]), Amount(channel.paid[1])
    if channel.status == "open":
        return ChannelState("open", Amount(opener), Amount(partner), 0, *drawn)
    return ChannelState("closing", Amount(opener), Amount(partner), channel.closes_at, *drawn)


def _party(params: ChannelParams, caller: Address) -> int:
    require(caller in (params.opener, params.partner))
    return int(caller == params.partner)


def _keys(params: ChannelParams) -> tuple[Address, Address]:
    return params.opener_key, params.partner_key


def _authorization(params: ChannelParams, deposit: int, fee: int, after: int, before: int) -> Digest:
    numbers = [value.to_bytes(32, "big") for value in (deposit, fee, after, before)]
    return purpose_digest("penstock/sim/authorization/1", authorization_nonce(params, deposit, fee), *numbers)
