"""What the escrow contract must do with a call: whose it is, what was signed, and what it moves.

`Law` is one deployment. It takes the very arguments that the contract takes, and knows nothing of how the contract
does it: signatures are looked up among those that were really made (`Seals`), and what an escrow does with an act is
`penstock.sim.escrow_model`. A call that is not allowed raises Forbidden and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode

from penstock.core.escrow import EscrowDomain, EscrowParams, authorization_nonce, deposit_digest, end_digest
from penstock.core.identity import Address, Digest, keccak
from penstock.sim.escrow_model import Escrow
from penstock.sim.model import Forbidden, require

from ..contracts.law import AUTHORIZATION, ENDLESS, PERMIT
from ..contracts.seals import Seals, Signature
from .words import UINT96, read_params, read_reading, read_tariff


@dataclass
class Accounts:
    """What a token and the contract know of accounts, and the escrows that there are or ever were."""

    wallets: Counter[Address] = field(default_factory=Counter)
    balances: Counter[Address] = field(default_factory=Counter)
    allowances: Counter[Address] = field(default_factory=Counter)
    permits: Counter[Address] = field(default_factory=Counter)  # how many were used
    used: frozenset[tuple[Address, bytes]] = frozenset()  # authorizations
    escrows: dict[bytes, Escrow] = field(default_factory=dict)

    def copy(self) -> Accounts:
        return Accounts(
            self.wallets.copy(),
            self.balances.copy(),
            self.allowances.copy(),
            self.permits.copy(),
            self.used,
            {id: escrow.copy() for id, escrow in self.escrows.items()},
        )


class Law:
    """One deployment of the contract, on one token."""

    def __init__(self, domain: EscrowDomain, token_separator: bytes | None, accounts: Accounts, seals: Seals) -> None:
        """`token_separator` is the EIP-712 domain of a token with permits; one without asks for no allowance."""
        self.domain, self.token_separator, self.accounts, self.seals = domain, token_separator, accounts, seals

    def call(self, caller: Address, name: str, args: Sequence[Any], now: int) -> list[bytes]:
        """Do it. Returns the ids of a batch's rows that were skipped. Raises Forbidden, with nothing changed."""
        before = self.accounts.copy()
        try:
            skipped: list[bytes] | None = getattr(self, name)(caller, now, *args)
        except Forbidden:
            self.accounts = before
            raise
        return skipped or []

    def withdraw(self, caller: Address, _: int, amount: int) -> None:
        self._debit(caller, amount)
        self.accounts.wallets[caller] += amount

    # Deposits

    def deposit(self, caller: Address, now: int, words: Sequence[Any]) -> None:
        params = self._own(caller, words)
        self._pull(caller, params.deposit)
        self._begin(params, now)

    def deposit_from_balance(self, caller: Address, now: int, words: Sequence[Any]) -> None:
        params = self._own(caller, words)
        self._debit(caller, params.deposit)
        self._begin(params, now)

    def deposit_with_permit(
        self, caller: Address, now: int, words: Sequence[Any], expiry: int, signature: Signature
    ) -> None:
        params = self._own(caller, words)
        try:
            require(self.token_separator is not None and now <= expiry)
            digest = self.permit(caller, params.deposit, self.accounts.permits[caller], expiry)
            self.seals.check(digest, signature, caller)
            self.accounts.permits[caller] += 1
            self.accounts.allowances[caller] = params.deposit
        except Forbidden:
            pass  # somebody else may have used it: then the allowance is there
        self.deposit(caller, now, words)

    def deposit_with_authorization(
        self, caller: Address, now: int, words: Sequence[Any], fee: int, after: int, before: int, signature: Signature
    ) -> None:
        params = read_params(self.domain, words)
        require(fee <= UINT96 and self.token_separator is not None and after < now < before)
        require(len(params.payer) == 20)
        nonce, total = authorization_nonce(params, fee), params.deposit + fee
        require((params.payer, nonce) not in self.accounts.used)
        self.seals.check(self.authorization(params.payer, total, after, before, nonce), signature, params.payer)
        require(self.accounts.wallets[params.payer] >= total)
        self.accounts.used |= {(params.payer, nonce)}
        self.accounts.wallets[params.payer] -= total
        self._begin(params, now)
        self.accounts.balances[caller] += fee

    def deposit_signed(
        self, caller: Address, now: int, words: Sequence[Any], fee: int, expiry: int, signature: bytes
    ) -> None:
        params = read_params(self.domain, words)
        require(fee <= UINT96 and now <= expiry and len(signature) == 64)
        r, vs = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        self.seals.check(deposit_digest(params, fee, expiry), (r, vs), params.payer)
        self._debit(params.payer, params.deposit + fee)
        self._begin(params, now)
        self.accounts.balances[caller] += fee

    # Readings

    def release(
        self, caller: Address, now: int, words: Sequence[Any], tariff: Any, fields: Any, signature: Signature
    ) -> None:
        params, escrow = self._find(words)
        reading = read_reading(fields)
        self.seals.check(reading.digest(params), signature, params.meter)
        by_payee = caller == params.payee
        self._paying(escrow, lambda: escrow.release(read_tariff(tariff), reading, by_payee, now))

    def contest(self, _: Address, now: int, words: Sequence[Any], tariff: Any, *shown: Any) -> None:
        params, escrow = self._find(words)
        first, second = read_reading(shown[0]), read_reading(shown[2])
        self.seals.check(first.digest(params), shown[1], params.meter)
        self.seals.check(second.digest(params), shown[3], params.meter)
        self._paying(escrow, lambda: escrow.contest(read_tariff(tariff), first, second, now))

    # Ends

    def end(self, _: Address, __: int, row: Sequence[Any]) -> None:
        words, amount, payer_signature, payee_signature = row
        params, escrow = self._find(words)
        require(amount <= UINT96)
        self.seals.check(end_digest(params, amount), payer_signature, params.payer_key)
        self.seals.check(end_digest(params, amount), payee_signature, params.payee_key)
        self._paying(escrow, lambda: escrow.end(amount))

    def end_many(self, caller: Address, now: int, rows: Sequence[Sequence[Any]]) -> list[bytes]:
        skipped = []
        for row in rows:
            try:
                self.end(caller, now, row)
            except Forbidden:
                skipped.append(read_params(self.domain, row[0]).id)
        return skipped

    def settle(self, _: Address, now: int, words: Sequence[Any]) -> None:
        _params, escrow = self._find(words)
        self._paying(escrow, lambda: escrow.settle(now))

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

    def _own(self, caller: Address, words: Sequence[Any]) -> EscrowParams:
        params = read_params(self.domain, words)
        require(params.payer == caller)
        return params

    def _pull(self, owner: Address, amount: int) -> None:
        accounts = self.accounts
        require(accounts.wallets[owner] >= amount)
        if self.token_separator is not None and accounts.allowances[owner] != ENDLESS:
            require(accounts.allowances[owner] >= amount)
            accounts.allowances[owner] -= amount
        accounts.wallets[owner] -= amount

    def _debit(self, owner: Address, amount: int) -> None:
        require(self.accounts.balances[owner] >= amount)
        self.accounts.balances[owner] -= amount

    def _begin(self, params: EscrowParams, now: int) -> None:
        require(params.id not in self.accounts.escrows)
        self.accounts.escrows[params.id] = Escrow.begin(params, now)

    def _find(self, words: Sequence[Any]) -> tuple[EscrowParams, Escrow]:
        escrow = self.accounts.escrows.get(read_params(self.domain, words).id)
        require(escrow is not None)
        assert escrow is not None
        return escrow.params, escrow

    def _paying(self, escrow: Escrow, act: Callable[[], None]) -> None:
        had = escrow.payee_had, escrow.payer_had
        act()
        self.accounts.balances[escrow.params.payee] += escrow.payee_had - had[0]
        self.accounts.balances[escrow.params.payer] += escrow.payer_had - had[1]
