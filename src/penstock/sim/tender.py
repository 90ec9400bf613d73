"""The simulated chain as a node's `core.ports.Ledger`: what it sends, and what each transaction does when it is mined.

What a call needs signed is checked when its transaction is mined, as the contract does.
"""

from __future__ import annotations

from penstock.core.channel import (
    Answer,
    ChannelParams,
    Release,
    SignedAddition,
    SignedOpening,
    Withdrawal,
    authorization_nonce,
)
from penstock.core.errors import OutOfFunds, PenstockError, TransactionFailed
from penstock.core.identity import Address, Digest, Key, check_signed, purpose_digest, to_hex
from penstock.core.ports import Authorization, Batch, Filing, Mined, SignedClose, SignedVoucher
from penstock.core.units import Amount
from penstock.sim.chain import Accounts
from penstock.sim.filings import check_filing, finish, keys_of, party_of, proofs_of
from penstock.sim.model import Forbidden, require
from penstock.sim.view import View


class SimLedger(View):
    """One party's ledger."""

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
            accounts.channel(params).add(party_of(params, key.address), deposit)

        return await self._send(key, params, "add", act)

    async def add_signed(
        self, key: Key, params: ChannelParams, owner: Address, addition: SignedAddition, signature: bytes
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            require(now <= addition.expiry)
            check_signed(addition.digest(params), signature, owner, "the addition")
            channel, party = accounts.channel(params), party_of(params, owner)
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
            party_of(params, key.address)
            accounts.channel(params).close(now)

        return await self._send(key, params, "close", act)

    async def file(self, key: Key, params: ChannelParams, filing: Filing) -> list[Mined]:
        return await self._file(key, params, filing, begin=False)

    async def _file(self, key: Key, params: ChannelParams, filing: Filing, begin: bool) -> list[Mined]:
        if not params.two_way and key.address == params.partner and not any(lock.expiry for lock in filing.locks):
            return await self._send(key, params, "finish", lambda accounts, now: finish(accounts, params, filing, now))

        def act(accounts: Accounts, now: int) -> None:
            party, channel = party_of(params, key.address), accounts.channel(params)
            check_filing(params, party, filing)
            if begin:
                channel.close(now)
            channel.file(party, filing.voucher, filing.locks, now)
            if any(count for count, _ in filing.proofs):
                channel.prove(party, proofs_of(filing), now)

        return await self._send(key, params, "file", act)

    async def answer(
        self, key: Key, params: ChannelParams, partner: bool, filing: Filing, sequence: int, consent: bytes
    ) -> list[Mined]:
        def act(accounts: Accounts, now: int) -> None:
            party, channel = int(partner), accounts.channel(params)
            check_filing(params, party, filing)
            digest = Answer(filing.voucher.content(params), sequence).digest(params)
            check_signed(digest, consent, keys_of(params)[party], "the answer")
            channel.answer(party, filing.voucher, filing.locks, sequence, now)
            if any(count for count, _ in filing.proofs):
                channel.prove(party, proofs_of(filing), now)

        return await self._send(key, params, "answer", act)

    async def prove(self, key: Key, params: ChannelParams, partner: bool, filing: Filing) -> list[Mined]:
        accounts, party = (await self._head()).accounts, int(partner)
        filed = accounts.channels[params.id].sides[party].filed if params.id in accounts.channels else None
        fresh = [proof for proof in proofs_of(filing) if filed and proof.count > filed.proven.get(proof.index, 0)]
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
            check_signed(release.digest(params), signature, keys_of(params)[party], "the release")
            if key.address != (params.opener, params.partner)[1 - party]:
                leave = Answer(release.content(params), 0).digest(params)
                check_signed(leave, consent or b"", keys_of(params)[1 - party], "the answer")
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


def _authorization(params: ChannelParams, deposit: int, fee: int, after: int, before: int) -> Digest:
    numbers = [value.to_bytes(32, "big") for value in (deposit, fee, after, before)]
    return purpose_digest("penstock/sim/authorization/1", authorization_nonce(params, deposit, fee), *numbers)
