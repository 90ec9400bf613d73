"""The contracts on a real chain: deployed, called, and asked for what their transactions did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eth_abi.abi import decode, encode
from eth_account import Account

from penstock.core.channel import (
    ChannelParams,
    Close,
    Domain,
    Lock,
    LockTree,
    Voucher,
    Withdrawal,
    authorization_nonce,
    compact,
    proof_words,
)
from penstock.core.identity import Address, Digest, Key, keccak
from penstock.ledgers.artifacts import Artifact, load
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.execute import Request

START = 1_800_000_000  # chain time when a world begins, in seconds
PERIOD = 3_600
ETHER = 10**18
EURO = 10**6
GAS = 60_000_000
NO_SIGNATURE = (0, 0)


class AnyChain(Protocol):
    """What a world needs of a chain: that of the devnet has it in this process, and a real node over JSON-RPC.

    A transaction is mined at once, and chain time stands still but for `increase_time`.
    """

    chain_id: int

    def call(self, request: Request) -> bytes:
        """What a call returns in the block to come. Raises Reverted."""

    def send_raw(self, raw: bytes) -> bytes:
        """Mine a signed transaction; returns its hash (32 bytes)."""

    def receipt(self, tx_hash: bytes) -> dict[str, Any] | None:
        """A mined transaction's receipt in wire form."""

    def nonce(self, address: bytes) -> int:
        """An account's next nonce."""

    def balance(self, address: bytes) -> int:
        """An account's wei."""

    def code(self, address: bytes) -> bytes:
        """A contract's code; empty for an account without."""

    def now(self) -> int:
        """The timestamp that the next block would carry (seconds)."""

    def increase_time(self, seconds: int) -> object:
        """Let chain time jump ahead, for calls and from the next block on."""

    def snapshot(self) -> int:
        """Remember this point."""

    def revert(self, snapshot: int) -> bool:
        """Go back to a point, which is used up with all later ones."""


def devnet(balances: Mapping[bytes, int]) -> AnyChain:
    """The devnet's chain at START, with accounts of so much wei."""
    return Chain(balances, clock=lambda: START)


def _type(entry: dict[str, Any]) -> str:
    """An ABI entry's canonical type; tuples written out."""
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(_type(part) for part in entry['components'])}){kind[5:]}"
    return kind


@dataclass(frozen=True)
class Receipt:
    """What a mined transaction did: its gas, and its logs in wire form."""

    gas: int
    logs: list[dict[str, Any]]


@dataclass(frozen=True)
class Contract:
    """A deployed contract."""

    chain: AnyChain
    address: Address
    abi: list[dict[str, Any]]

    def calldata(self, name: str, args: tuple[Any, ...]) -> bytes:
        """The bytes of a call."""
        inputs = [_type(entry) for entry in self._entry("function", name)["inputs"]]
        return keccak(f"{name}({','.join(inputs)})".encode())[:4] + encode(inputs, args)

    def call(self, name: str, *args: Any, sender: Key | None = None) -> Any:
        """What a view returns. Raises Reverted with the contract's reason."""
        origin = sender.address if sender else Address(bytes(20))
        found = self.chain.call(Request(to=self.address, data=self.calldata(name, args), sender=origin))
        values = decode([_type(entry) for entry in self._entry("function", name)["outputs"]], found)
        return values[0] if len(values) == 1 else values

    def send(self, key: Key, name: str, *args: Any, value: int = 0) -> Receipt:
        """Mine a transaction of `key`. Raises Reverted with the contract's reason."""
        return send(self.chain, key, self.address, self.calldata(name, args), value)

    def events(self, receipt: Receipt, name: str) -> list[dict[str, Any]]:
        """This contract's events of one name, decoded, in order."""
        entry = self._entry("event", name)
        topic = keccak(f"{name}({','.join(_type(part) for part in entry['inputs'])})".encode())
        indexed = [part for part in entry["inputs"] if part["indexed"]]
        plain = [part for part in entry["inputs"] if not part["indexed"]]
        found = []
        for log in receipt.logs:
            topics = [bytes.fromhex(text[2:]) for text in log["topics"]]
            if bytes.fromhex(log["address"][2:]) != self.address or topics[0] != topic:
                continue
            values = {
                part["name"]: decode([part["type"]], raw)[0] for part, raw in zip(indexed, topics[1:], strict=True)
            }
            data = decode([part["type"] for part in plain], bytes.fromhex(log["data"][2:]))
            values.update({part["name"]: value for part, value in zip(plain, data, strict=True)})
            found.append(values)
        return found

    def _entry(self, kind: str, name: str) -> dict[str, Any]:
        return next(entry for entry in self.abi if entry["type"] == kind and entry["name"] == name)


def send(chain: AnyChain, key: Key, to: bytes, data: bytes, value: int = 0) -> Receipt:
    """Sign and mine a transaction. Raises Reverted, with the contract's reason, where it failed."""
    request = Request(to=to, data=data, sender=key.address, value=value)
    signed = Account.sign_transaction(
        {
            "chainId": chain.chain_id,
            "nonce": chain.nonce(key.address),
            "to": to,
            "value": value,
            "data": data,
            "gas": GAS,
            "gasPrice": 2 * 10**9,
        },
        key.secret,
    )
    receipt = chain.receipt(chain.send_raw(bytes(signed.raw_transaction)))
    assert receipt is not None
    if receipt["status"] != "0x1":
        chain.call(request)
        raise AssertionError("a transaction failed that succeeds as a call")
    return Receipt(int(receipt["gasUsed"], 16), receipt["logs"])


def deploy(chain: AnyChain, key: Key, artifact: Artifact, *args: Any) -> Contract:
    """Deploy a contract. Raises Reverted where its constructor refuses."""
    constructor = [entry for entry in artifact["abi"] if entry["type"] == "constructor"]
    inputs = [_type(entry) for entry in constructor[0]["inputs"]] if constructor else []
    nonce = chain.nonce(key.address)
    send(chain, key, b"", bytes.fromhex(artifact["bytecode"].removeprefix("0x")) + encode(inputs, args))
    address = Address(keccak(b"\xd6\x94" + key.address + (bytes([nonce]) if nonce else b"\x80"))[12:])
    assert chain.code(address), "no code where the contract should be"
    return Contract(chain, address, artifact["abi"])


def compiled(source: Path) -> Artifact:
    """Compile one of the tests' own contracts, as the build does with the others."""
    from vyper.compiler import compile_code
    from vyper.compiler.settings import Settings

    made = compile_code(source.read_text(), output_formats=["abi", "bytecode"], settings=Settings(evm_version="prague"))
    return Artifact(abi=made["abi"], bytecode=made["bytecode"])


def key(name: str) -> Key:
    """A key of its own for each name."""
    return Key(keccak(b"penstock contract test " + name.encode()))


def split(signature: bytes) -> tuple[int, bytes, bytes]:
    """A signature of 65 bytes as tokens take it."""
    return signature[64], signature[:32], signature[32:64]


def word(address: bytes) -> int:
    """An address as the contract takes it."""
    return int.from_bytes(address, "big")


def abi_params(params: ChannelParams) -> tuple[int, ...]:
    """A channel's parameters as the contract takes them; a key that is its party's account is spared."""
    opener, partner, opener_key, partner_key = (
        word(address) for address in (params.opener, params.partner, params.opener_key, params.partner_key)
    )
    keys = (0 if opener_key == opener else opener_key, 0 if partner_key == partner else partner_key)
    return (opener, partner, *keys, params.terms)


def abi_place(params: ChannelParams, deposit: int) -> tuple[int, int]:
    """Partner, deposit and terms as an opening takes them."""
    return word(params.partner) | deposit << 160, params.terms


def abi_voucher(voucher: Voucher) -> tuple[Any, ...]:
    """A voucher as the contract takes it."""
    return (voucher.nonce, voucher.amount, voucher.locked, voucher.locked_until, voucher.locks_root)


@dataclass
class Chainlet:
    """A hash chain: `preimage(k)` proves k ticks."""

    ticks: int
    tick_value: int
    expiry: int = 0
    seed: bytes = b"seed"
    links: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        from hashlib import sha256

        link = sha256(self.seed).digest()
        self.links = [link]
        for _ in range(self.ticks):
            link = sha256(link).digest()
            self.links.append(link)

    @property
    def lock(self) -> Lock:
        return Lock(self.links[self.ticks], self.tick_value, self.ticks, self.expiry)

    def preimage(self, count: int) -> bytes:
        return self.links[self.ticks - count]


class World:
    """A chain with the three contracts, an opener, a partner and a stranger who own tokens and have balances."""

    def __init__(self, found: Callable[[Mapping[bytes, int]], AnyChain] = devnet) -> None:
        """Build it on the chain that `found` begins with those balances (wei)."""
        self.opener, self.partner, self.stranger = key("opener"), key("partner"), key("stranger")
        self.opener_key, self.partner_key = key("opener vouchers"), key("partner vouchers")
        self.parties = (self.opener, self.partner, self.stranger)
        self.chain = found({party.address: 1_000 * ETHER for party in self.parties})
        self.token = deploy(self.chain, self.stranger, load("CryptoEuro"))
        self.channel = deploy(self.chain, self.stranger, load("Channel"), self.token.address)
        self.domain = Domain(self.chain.chain_id, self.channel.address, self.token.address)
        self.token.send(self.stranger, "mint", [party.address for party in self.parties], 10_000 * EURO)
        for party in self.parties:
            self.token.send(party, "approve", self.channel.address, 2**256 - 1)
            self.channel.send(party, "deposit", 1_000 * EURO)
        self._counter = 0
        self.openers: dict[bytes, Key] = {}

    @property
    def plain(self) -> dict[str, Address]:
        """Voucher keys that are the accounts themselves."""
        return {"opener_key": self.opener.address, "partner_key": self.partner.address}

    def params(self, two_way: bool = False, period: int = PERIOD, **fixed: Any) -> ChannelParams:
        """Parameters of a channel that has not been opened."""
        self._counter += 1
        given = {
            "opener": self.opener.address,
            "partner": self.partner.address,
            "opener_key": self.opener_key.address,
            "partner_key": self.partner_key.address,
            "counter": self._counter,
            **fixed,
        }
        return ChannelParams(self.domain, period=period, two_way=two_way, **given)

    def open(self, opener_deposit: int, partner_deposit: int = 0, two_way: bool = True, **fixed: Any) -> ChannelParams:
        """An open channel with deposits from balances."""
        params = self.params(two_way, **fixed)
        self.open_by(self.opener, "open_with_keys", params, opener_deposit)
        if partner_deposit:
            self.channel.send(self.partner, "add", abi_params(params), partner_deposit)
        return params

    def send(self, sender: Key, name: str, params: ChannelParams, *args: Any) -> Receipt:
        """A transaction to the channel contract about one channel."""
        return self.channel.send(sender, name, abi_params(params), *args)

    def opening(self, params: ChannelParams, deposit: int) -> tuple[int, ...]:
        """The arguments of an opening by the opener itself."""
        return (*abi_place(params, deposit), *abi_params(params)[2:4])

    def open_by(self, sender: Key, name: str, params: ChannelParams, deposit: int, *args: Any) -> Receipt:
        """Send one of the openings that are the sender's own."""
        return self.channel.send(sender, name, *self.opening(params, deposit), *args)

    def key_of(self, params: ChannelParams, partner: bool) -> Key:
        """The key that signs a side's vouchers."""
        wanted = params.partner_key if partner else params.opener_key
        keys = (self.opener, self.partner, self.stranger, self.opener_key, self.partner_key)
        return next(key for key in keys if key.address == wanted)

    def filing(
        self,
        params: ChannelParams,
        payee: Key,
        amount: int,
        locks: list[Lock] | None = None,
        claims: list[tuple[int, int, bytes]] | None = None,
        nonce: int = 1,
    ) -> tuple[Any, ...]:
        """The arguments that file a voucher to `payee`; `claims` are (index, count, preimage)."""
        voucher = Voucher.over(nonce, amount, locks or [])
        payer = self.key_of(params, payee is self.opener)
        return (
            abi_voucher(voucher),
            compact(payer.sign(voucher.digest(params))),
            self.claims(locks or [], claims or []),
        )

    def file(self, sender: Key, params: ChannelParams, *filing: Any, begin: bool = False) -> Receipt:
        """File within the challenge, or to begin it."""
        return self.send(sender, "file", params, *filing, begin)

    def claims(self, locks: list[Lock], claims: list[tuple[int, int, bytes]]) -> list[bytes]:
        """Proofs of ticks as the contract takes them; each is (index, count, preimage)."""
        return [
            part for index, count, preimage in claims for part in proof_words(LockTree(locks), index, count, preimage)
        ]

    def consent(
        self,
        params: ChannelParams,
        opener_balance: int,
        partner_balance: int,
        expiry: int = START + 10**6,
        kind: type[Close] | type[Withdrawal] = Close,
    ) -> tuple[Any, ...]:
        """A cooperative close (or withdrawal) that both sides have signed, as the contract takes it."""
        digest = kind(opener_balance, partner_balance, expiry).digest(params)
        signatures = [compact(self.key_of(params, partner).sign(digest)) for partner in (False, True)]
        return (abi_params(params), opener_balance | partner_balance << 96 | expiry << 192, *signatures)

    def authorization(
        self,
        params: ChannelParams,
        deposit: int,
        after: int = 0,
        before: int = 2**63,
        nonce: bytes | None = None,
        fee: int = 0,
    ) -> tuple[Any, ...]:
        """The arguments after `params` that open a channel by the opener's EIP-3009 signature."""
        kind = keccak(
            b"ReceiveWithAuthorization(address from,address to,uint256 value,"
            b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        )
        body = encode(
            ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"],
            [
                kind,
                self.opener.address,
                self.channel.address,
                deposit + fee,
                after,
                before,
                nonce or authorization_nonce(params, deposit, fee),
            ],
        )
        signature = self.opener.sign(self.token_digest(keccak(body)))
        return deposit | fee << 96, after, before, compact(signature)

    def permit(self, amount: int, deadline: int = START + 10**6) -> tuple[Any, ...]:
        """An EIP-2612 permit of the opener's to the channel contract: (deadline, signature)."""
        kind = keccak(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
        nonce = self.token.call("nonces", self.opener.address)
        body = encode(
            ["bytes32", "address", "address", "uint256", "uint256", "uint256"],
            [kind, self.opener.address, self.channel.address, amount, nonce, deadline],
        )
        return deadline, compact(self.opener.sign(self.token_digest(keccak(body))))

    def rows(self, signed: list[tuple[ChannelParams, Close | Voucher]]) -> list[list[int]]:
        """Closes or vouchers as rows of a batch that the partner sends; openers sign with their accounts."""
        rows = []
        for params, what in signed:
            amount, second = (
                (what.partner_balance, what.expiry) if isinstance(what, Close) else (what.amount, what.nonce)
            )
            signature = compact(self.account(params.opener).sign(what.digest(params)))
            rows.append([word(params.opener) | amount << 160, params.terms | second << 128, *signature])
        return rows

    def account(self, address: Address) -> Key:
        """The key of a party, or of one of many openers."""
        known = {party.address: party for party in self.parties} | self.openers
        return known[address]

    def many(self, count: int, deposit: int) -> list[Key]:
        """Other openers, with ether, tokens, an allowance and a balance of `deposit`."""
        openers = [key(f"opener {number}") for number in range(count)]
        for opener in openers:
            self.openers[opener.address] = opener
            send(self.chain, self.stranger, opener.address, b"", 10**18)
            self.token.send(self.stranger, "transfer", opener.address, 2 * deposit)
            self.token.send(opener, "approve", self.channel.address, 2**256 - 1)
            self.channel.send(opener, "deposit", deposit)
        return openers

    def token_digest(self, struct_hash: bytes) -> Digest:
        """An EIP-712 digest under the token's domain."""
        return Digest(keccak(b"\x19\x01" + self.token.call("DOMAIN_SEPARATOR") + struct_hash))

    def balance(self, party: Key) -> int:
        """What a party has in the contract, outside channels."""
        return int(self.channel.call("account", party.address)[0])

    def wallet(self, party: Key) -> int:
        """What a party has in its wallet."""
        return int(self.token.call("balanceOf", party.address))

    def wallet_of_contract(self) -> int:
        """All tokens that the channel contract holds."""
        return int(self.token.call("balanceOf", self.channel.address))

    def state(self, params: ChannelParams) -> tuple[int, int, int, int]:
        """(status, opener deposit, partner deposit, closes_at) of a channel."""
        word, _, lowest = self.channel.call("channel", abi_params(params))
        if not word >> 232 & 1:
            return 3 if word or params.counter < lowest else 0, 0, 0, 0
        closes_at = word >> 192 & (2**40 - 1)
        partner = word >> 96 & (2**96 - 1) if params.two_way else 0
        return 2 if closes_at else 1, word & (2**96 - 1), partner, closes_at

    def drawn(self, params: ChannelParams) -> tuple[int, int]:
        """What opener and partner have been paid from a channel so far."""
        drawn = self.channel.call("channel", abi_params(params))[1]
        return drawn & (2**96 - 1), drawn >> 96

    def filed(self, params: ChannelParams, payee: Key) -> tuple[int, int, int, bytes]:
        """(amount, locked, locked until, tree) filed in a party's favour."""
        found: tuple[int, int, int, bytes] = self.channel.call("filing", abi_params(params), payee is self.partner)
        return found

    def wait(self, seconds: int) -> None:
        """Let chain time run ahead."""
        self.chain.increase_time(seconds)

    def gains(self, before: tuple[int, int]) -> tuple[int, int]:
        """By how much the balances of opener and partner have grown since `balances()` was `before`."""
        now = self.balances()
        return now[0] - before[0], now[1] - before[1]

    def balances(self) -> tuple[int, int]:
        """The balances of opener and partner."""
        return self.balance(self.opener), self.balance(self.partner)
