"""What the channel contract must do with a call: whose it is, what was signed, and what it moves.

`Law` is one deployment. It takes the very arguments that the contract takes, and knows nothing of how the contract
does it: signatures are looked up among those that were really made (`Seals`), trees of locks among those that were
really grown. A call that is not allowed raises Forbidden and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode

from penstock.core.channel import (
    APART,
    Answer,
    ChannelParams,
    Close,
    Domain,
    Release,
    SignedAddition,
    SignedOpening,
    Voucher,
    Withdrawal,
    authorization_nonce,
)
from penstock.core.errors import OutOfRange
from penstock.core.identity import Address, Digest, keccak
from penstock.sim.model import Channel, Forbidden, require

from .seals import UINT64, UINT96, UINT128, UINT160, Seals, Signature, address, keys, read_proofs

ENDLESS = 2**256 - 1  # an allowance that never shrinks
PERMIT = b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
AUTHORIZATION = (
    b"ReceiveWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


@dataclass
class Accounts:
    """What a token and the contract know of accounts, and the channels that there are or ever were."""

    wallets: Counter[Address] = field(default_factory=Counter)
    balances: Counter[Address] = field(default_factory=Counter)
    allowances: Counter[Address] = field(default_factory=Counter)
    counters: Counter[Address] = field(default_factory=Counter)  # the lowest ordinary one that is left
    permits: Counter[Address] = field(default_factory=Counter)  # how many were used
    used: frozenset[tuple[Address, bytes]] = frozenset()  # authorizations
    channels: dict[bytes, Channel] = field(default_factory=dict)

    def copy(self) -> Accounts:
        return Accounts(
            self.wallets.copy(),
            self.balances.copy(),
            self.allowances.copy(),
            self.counters.copy(),
            self.permits.copy(),
            self.used,
            {id: channel.copy() for id, channel in self.channels.items()},
        )


class Law:
    """One deployment of the contract, on one token."""

    def __init__(self, domain: Domain, token_separator: bytes | None, accounts: Accounts, seals: Seals) -> None:
        """`token_separator` is the EIP-712 domain of a token with permits; one without asks for no allowance."""
        self.domain, self.token_separator, self.accounts, self.seals = domain, token_separator, accounts, seals
        self.known: dict[bytes, ChannelParams] = {}  # of all channels that were ever opened

    def call(self, caller: Address, name: str, args: Sequence[Any], now: int) -> list[bytes]:
        """Do it. Returns the ids of a batch's rows that were skipped. Raises Forbidden, with nothing changed."""
        before = self.accounts.copy()
        try:
            skipped: list[bytes] | None = getattr(self, name)(caller, now, *args)
        except Forbidden:
            self.accounts = before
            raise
        return skipped or []

    # Deposits and withdrawals

    def deposit(self, caller: Address, _: int, amount: int) -> None:
        self._pull(caller, amount)
        self._credit(caller, amount)

    def withdraw(self, caller: Address, _: int, amount: int) -> None:
        self._debit(caller, amount)
        self.accounts.wallets[caller] += amount

    # Openings

    def open(self, caller: Address, _: int, place: int, terms: int) -> None:
        require(terms & UINT64 < APART)
        self.open_with_keys(caller, _, place, terms, 0, 0)

    def open_with_keys(self, caller: Address, _: int, place: int, terms: int, *keys: int) -> None:
        self._debit(caller, place >> 160)
        self._open(self._placed(caller, place, terms, *keys), place >> 160)

    def open_from_token(self, caller: Address, _: int, place: int, terms: int) -> None:
        require(terms & UINT64 >= APART)
        self.open_from_token_with_keys(caller, _, place, terms, 0, 0)

    def open_from_token_with_keys(self, caller: Address, _: int, place: int, terms: int, *keys: int) -> None:
        self._pull(caller, place >> 160)
        self._open(self._placed(caller, place, terms, *keys), place >> 160)

    def open_with_permit(self, caller: Address, now: int, place: int, terms: int, *more: Any) -> None:
        opener_key, partner_key, deadline, signature = more
        nonce = self.accounts.permits[caller]
        try:
            require(self.token_separator is not None and now <= deadline)
            self.seals.check(self.permit(caller, place >> 160, nonce, deadline), signature, caller)
            self.accounts.permits[caller] += 1
            self.accounts.allowances[caller] = place >> 160
        except Forbidden:
            pass  # somebody else may have used it: then the allowance is there
        self.open_from_token_with_keys(caller, now, place, terms, opener_key, partner_key)

    def open_with_authorization(
        self, caller: Address, now: int, words: Sequence[int], sums: int, after: int, before: int, signature: Signature
    ) -> None:
        params, deposit, fee = self._params(words), sums & UINT96, sums >> 96
        require(deposit > 0 and self.token_separator is not None and after < now < before)
        require(len(params.opener) == 20)
        nonce = authorization_nonce(params, deposit, fee)
        require((params.opener, nonce) not in self.accounts.used)
        digest = self.authorization(params.opener, deposit + fee, after, before, nonce)
        self.seals.check(digest, signature, params.opener)
        require(self.accounts.wallets[params.opener] >= deposit + fee)
        self.accounts.used |= {(params.opener, nonce)}
        self.accounts.wallets[params.opener] -= deposit + fee
        self._open(params, deposit)
        self._credit(caller, fee)

    def open_signed(
        self, caller: Address, now: int, words: Sequence[int], sums: int, expiry: int, signature: bytes
    ) -> None:
        params, opening = self._params(words), SignedOpening(sums & UINT96, sums >> 96, expiry)
        require(now <= expiry)
        self._check_account(params.opener, opening.digest(params), signature)
        self._debit(params.opener, opening.deposit + opening.fee)
        self._open(params, opening.deposit)
        self._credit(caller, opening.fee)

    # Additions

    def add(self, caller: Address, _: int, words: Sequence[int], amount: int) -> None:
        self._debit(caller, amount)
        params, channel = self._find(words)
        channel.add(self._party(params, caller), amount)

    def add_from_token(self, caller: Address, _: int, words: Sequence[int], amount: int) -> None:
        self._pull(caller, amount)
        params, channel = self._find(words)
        channel.add(self._party(params, caller), amount)

    def add_signed(
        self, caller: Address, now: int, words: Sequence[int], owner: int, sums: int, expiry: int, signature: bytes
    ) -> None:
        (params, channel), signer = self._find(words), address(owner)
        addition = SignedAddition(sums & UINT96, sums >> 96, expiry)
        require(now <= expiry)
        self._check_account(signer, addition.digest(params), signature)
        party = self._party(params, signer)
        amount = addition.total - channel.deposits[party]
        require(amount > 0)
        self._debit(signer, amount + addition.fee)
        channel.add(party, amount)
        self._credit(caller, addition.fee)

    # Claims and consents

    def claim(self, caller: Address, _: int, words: Sequence[int], fields: Sequence[Any], signature: Signature) -> None:
        params, channel = self._find(words)
        require(caller == params.partner)
        self.seals.check(Voucher(*fields).digest(params), signature, params.opener_key)
        self._paying(params, channel, lambda: channel.claim(fields[1]))

    def claim_many(self, caller: Address, now: int, key: int, rows: Sequence[Sequence[int]]) -> list[bytes]:
        def one(row: Sequence[int]) -> None:
            voucher = (row[1] >> 128, row[0] >> 160, 0, 0, bytes(32))
            self.claim(caller, now, self._row(caller, key, row), voucher, row[2:])

        return self._each(rows, one, lambda row: self._row(caller, key, row))

    def withdraw_together(self, caller: Address, now: int, consent: Sequence[Any]) -> None:
        self._consented(caller, now, consent, Withdrawal, Channel.withdraw)

    def close_together(self, caller: Address, now: int, consent: Sequence[Any]) -> None:
        self._consented(caller, now, consent, Close, Channel.close_together)

    def close_many(self, caller: Address, now: int, consents: Sequence[Sequence[Any]]) -> list[bytes]:
        return self._each(consents, lambda row: self.close_together(caller, now, row), lambda row: row[0])

    def close_mine(self, caller: Address, now: int, key: int, rows: Sequence[Sequence[int]]) -> list[bytes]:
        def one(row: Sequence[int]) -> None:
            # A row has room for more bits than an expiry has; the contract does not look at them.
            words, total, expiry = self._row(caller, key, row), row[0] >> 160, row[1] >> 128 & UINT64
            _, channel = self._find(words)
            require(total <= channel.pot and expiry >= now)
            self._close_row(caller, words, channel.pot - total, total, expiry, row[2:])

        return self._each(rows, one, lambda row: self._row(caller, key, row))

    # The challenge

    def close(self, caller: Address, now: int, words: Sequence[int]) -> None:
        params, channel = self._find(words)
        self._party(params, caller)
        channel.close(now)

    def file(self, caller: Address, now: int, words: Sequence[int], *filing: Any) -> None:
        fields, signature, proofs, begin = filing
        params, channel = self._find(words)
        party, voucher = self._party(params, caller), Voucher(*fields)
        if begin:
            channel.close(now)
        self._check_payer(params, party, voucher, signature)
        channel.file(party, voucher, self.seals.locks(voucher), now)
        if proofs:
            channel.prove(party, read_proofs(proofs), now)

    def answer(self, caller: Address, now: int, words: Sequence[int], partner: bool, *answer: Any) -> None:
        fields, signature, sequence, consent = answer
        params, channel = self._find(words)
        party, voucher = int(partner), Voucher(*fields)
        self._check_payer(params, party, voucher, signature)
        self.seals.check(Answer(voucher.content(params), sequence).digest(params), consent, keys(params)[party])
        channel.answer(party, voucher, self.seals.locks(voucher), sequence, now)

    def release(self, caller: Address, now: int, words: Sequence[int], partner: bool, *release: Any) -> None:
        nonce, amount, signature, consent = release
        params, channel = self._find(words)
        party = int(partner)
        require(nonce <= UINT64 and amount <= UINT96)
        made = Release(nonce, amount)
        self.seals.check(made.digest(params), signature, keys(params)[party])
        if caller != (params.opener, params.partner)[1 - party]:
            answer = Answer(made.content(params), 0)
            self.seals.check(answer.digest(params), consent, keys(params)[1 - party])
        channel.release(party, nonce, amount, now)

    def prove(self, _: Address, now: int, words: Sequence[int], partner: bool, proofs: Sequence[bytes]) -> None:
        _params, channel = self._find(words)
        channel.prove(int(partner), read_proofs(proofs), now)

    def finish(self, caller: Address, now: int, words: Sequence[int], *filing: Any) -> None:
        fields, signature, proofs = filing
        params, channel = self._find(words)
        voucher = Voucher(*fields)
        require(caller == params.partner)
        self._check_payer(params, 1, voucher, signature)
        read = read_proofs(proofs)
        self._paying(params, channel, lambda: channel.finish(voucher, self.seals.locks(voucher), read, now))

    def settle(self, _: Address, now: int, words: Sequence[int]) -> None:
        params, channel = self._find(words)
        self._paying(params, channel, lambda: channel.settle(now))

    # What is signed for the token

    def permit(self, owner: Address, amount: int, nonce: int, deadline: int) -> Digest:
        """The digest of an EIP-2612 permit to the contract."""
        kinds = ["bytes32", "address", "address", "uint256", "uint256", "uint256"]
        return self._token_digest(kinds, PERMIT, owner, self.domain.contract, amount, nonce, deadline)

    def authorization(self, owner: Address, amount: int, after: int, before: int, nonce: bytes) -> Digest:
        """The digest of an EIP-3009 authorization to the contract."""
        kinds = ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"]
        return self._token_digest(kinds, AUTHORIZATION, owner, self.domain.contract, amount, after, before, nonce)

    def _token_digest(self, kinds: list[str], purpose: bytes, *values: Any) -> Digest:
        body = keccak(encode(kinds, [keccak(purpose), *values]))
        return Digest(keccak(b"\x19\x01" + (self.token_separator or bytes(32)) + body))

    # The rules that calls share

    def _pull(self, owner: Address, amount: int) -> None:
        accounts = self.accounts
        require(accounts.wallets[owner] >= amount)
        if self.token_separator is not None and accounts.allowances[owner] != ENDLESS:
            require(accounts.allowances[owner] >= amount)
            accounts.allowances[owner] -= amount
        accounts.wallets[owner] -= amount

    def _credit(self, owner: Address, amount: int) -> None:
        self.accounts.balances[owner] += amount

    def _debit(self, owner: Address, amount: int) -> None:
        require(self.accounts.balances[owner] >= amount)
        if amount:
            self.accounts.balances[owner] -= amount

    def _placed(self, opener: Address, place: int, terms: int, opener_key: int, partner_key: int) -> ChannelParams:
        return self._params((int.from_bytes(opener, "big"), place & UINT160, opener_key, partner_key, terms))

    def _params(self, words: Sequence[int]) -> ChannelParams:
        opener, partner, opener_key, partner_key, terms = words
        return ChannelParams(
            self.domain,
            opener=address(opener),
            partner=address(partner),
            opener_key=address(opener_key or opener),
            partner_key=address(partner_key or partner),
            period=terms >> 65,
            two_way=bool(terms >> 64 & 1),
            counter=terms & UINT64,
        )

    def _open(self, params: ChannelParams, deposit: int) -> None:
        try:
            params.check()
        except OutOfRange:
            raise Forbidden from None
        if params.counter < APART:
            require(params.counter >= self.accounts.counters[params.opener])
            self.accounts.counters[params.opener] = params.counter + 1
        require(params.id not in self.accounts.channels)
        self.accounts.channels[params.id] = Channel(params.two_way, params.period, (deposit, 0))
        self.known[params.id] = params

    def _find(self, words: Sequence[int]) -> tuple[ChannelParams, Channel]:
        params = self._params(words)
        channel = self.accounts.channels.get(params.id)
        require(channel is not None)
        assert channel is not None
        return params, channel

    def _paying(self, params: ChannelParams, channel: Channel, act: Callable[[], None]) -> None:
        before = channel.paid
        act()
        for owner, had, has in zip((params.opener, params.partner), before, channel.paid, strict=True):
            self._credit(owner, has - had)

    def _each(
        self, rows: Sequence[Any], act: Callable[[Any], None], words: Callable[[Any], Sequence[int]]
    ) -> list[bytes]:
        skipped = []
        for row in rows:
            before = self.accounts.copy()
            try:
                act(row)
            except Forbidden:
                self.accounts = before
                skipped.append(self._params(words(row)).id)
        return skipped

    def _row(self, caller: Address, key: int, row: Sequence[int]) -> tuple[int, ...]:
        return row[0] & UINT160, int.from_bytes(caller, "big"), 0, key, row[1] & UINT128

    def _consented(
        self,
        caller: Address,
        now: int,
        consent: Sequence[Any],
        kind: type[Close] | type[Withdrawal],
        act: Callable[[Channel, int, int], None],
    ) -> None:
        words, split, *signatures = consent
        params, channel = self._find(words)
        totals, expiry = (split & UINT96, split >> 96 & UINT96), split >> 192
        require(now <= expiry)
        digest = kind(*totals, expiry).digest(params)
        for party, key, signature in zip((params.opener, params.partner), keys(params), signatures, strict=True):
            if caller != party:
                self.seals.check(digest, signature, key)
        self._paying(params, channel, lambda: act(channel, *totals))

    def _close_row(
        self, caller: Address, words: Sequence[int], rest: int, total: int, expiry: int, signature: Signature
    ) -> None:
        params, channel = self._find(words)
        self.seals.check(Close(rest, total, expiry).digest(params), signature, params.opener_key)
        self._paying(params, channel, lambda: channel.close_together(rest, total))

    def _check_payer(self, params: ChannelParams, party: int, voucher: Voucher, signature: Signature) -> None:
        self.seals.check(voucher.digest(params), signature, keys(params)[1 - party])

    def _check_account(self, owner: Address, digest: Digest, signature: bytes) -> None:
        require(len(signature) == 64)
        words = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        self.seals.check(digest, words, owner)

    def _party(self, params: ChannelParams, caller: Address) -> int:
        require(caller in (params.opener, params.partner))
        return int(caller == params.partner)
