"""Parties and papers for tests of the EVM ledger: a supplier, its openers, what they sign; and a node in between."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import rlp
from aiohttp import ClientSession, web
from eth_account import Account

from penstock.core.channel import Answer, ChannelParams, Close, Lock, Release, Voucher
from penstock.core.identity import Address, Key, keccak, parse_address, to_hex
from penstock.core.ports import Filing, SignedClose, SignedVoucher
from penstock.ledgers.contract import Contract
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.fees import Fees

PERIOD = 3_600
SUPPLIER = dev_key(39)
SUPPLIER_KEY = Key(keccak(b"the supplier's voucher key"))
FOREVER = 2**40


@contextlib.asynccontextmanager
async def ledger_of(
    manifest: Manifest,
    name: str = "CryptoEuroChannel",
    confirmations: int = 0,
    url: str = "",
    fees: Fees | None = None,
) -> AsyncIterator[EvmLedger]:
    contract = parse_address(manifest.contracts[name])
    ledger = await EvmLedger.connect(url or manifest.url, contract, manifest.chain_id, confirmations, fees)
    try:
        yield ledger
    finally:
        await ledger.disconnect()


def voucher_key(opener: Key) -> Key:
    return Key(keccak(b"voucher key of " + opener.address))


def channel_of(ledger: EvmLedger, opener: Key, counter: int = 0, two_way: bool = False) -> ChannelParams:
    """A channel from `opener` to the supplier, with voucher keys of their own."""
    return ChannelParams(
        ledger.domain,
        opener.address,
        SUPPLIER.address,
        voucher_key(opener).address,
        SUPPLIER_KEY.address,
        PERIOD,
        two_way,
        counter,
    )


def plain_channel(ledger: EvmLedger, opener: Key, counter: int = 0) -> ChannelParams:
    """A one-way channel from `opener` to the supplier, whose accounts are the voucher keys."""
    return ChannelParams(
        ledger.domain,
        opener.address,
        SUPPLIER.address,
        opener.address,
        SUPPLIER.address,
        PERIOD,
        False,
        counter,
    )


def signed_close(opener: Key, params: ChannelParams, opener_balance: int, partner_balance: int) -> SignedClose:
    close = Close(opener_balance, partner_balance, FOREVER)
    digest = close.digest(params)
    return SignedClose(params, close, voucher_key(opener).sign(digest), SUPPLIER_KEY.sign(digest))


def signed_voucher(signer: Key, params: ChannelParams, amount: int, locks: tuple[Lock, ...] = ()) -> SignedVoucher:
    voucher = Voucher.over(1, amount, locks)
    return SignedVoucher(params, voucher, signer.sign(voucher.digest(params)))


def preimage(seed: bytes, ticks_left: int) -> bytes:
    for _ in range(ticks_left):
        seed = hashlib.sha256(seed).digest()
    return seed


def filing(
    opener: Key, params: ChannelParams, nonce: int, amount: int, proven: tuple[int, ...] = (), expiry: int = 0
) -> Filing:
    """A voucher over `amount` and locks of ten ticks of 100, each with so many ticks proven."""
    seeds = [keccak(b"seed %d" % index) for index in range(len(proven))]
    locks = tuple(Lock(preimage(seed, 10), 100, 10, expiry) for seed in seeds)
    voucher = Voucher.over(nonce, amount, locks)
    proofs = tuple(
        (count, preimage(seed, 10 - count) if count else b"") for seed, count in zip(seeds, proven, strict=True)
    )
    return Filing(voucher, voucher_key(opener).sign(voucher.digest(params)), locks, proofs)


def consent_to(params: ChannelParams, content: Voucher | Release, signer: Key, sequence: int = 0) -> bytes:
    """A party's leave to file in its name."""
    return signer.sign(Answer(content.content(params), sequence).digest(params))


async def increase_time(ledger: Contract, seconds: int) -> None:
    await ledger._node.ask("evm_increaseTime", seconds)
    await ledger._node.ask("evm_mine")


async def pay_ether(ledger: Contract, key: Key, to: bytes, wei: int, data: bytes = b"") -> None:
    """A plain transaction that carries ether, which channels never do."""
    node = ledger._node
    fields = {
        "type": 2,
        "chainId": ledger.domain.chain_id,
        "nonce": await node.quantity("eth_getTransactionCount", to_hex(key.address), "pending"),
        "to": bytes(to),
        "value": wei,
        "data": data,
        "gas": 200_000,
        "maxFeePerGas": 5 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    raw = bytes(Account.sign_transaction(fields, key.secret).raw_transaction)
    await node.ask("eth_sendRawTransaction", "0x" + raw.hex())


async def deploy_code(ledger: Contract, key: Key, code_at: Callable[[Address], bytes]) -> Address:
    """Put bytes at a new address, which they may depend on."""
    node = ledger._node
    nonce = await node.quantity("eth_getTransactionCount", to_hex(key.address), "pending")
    address = Address(keccak(rlp.encode([bytes(key.address), nonce]))[12:])
    code = code_at(address)
    # PUSH2 size, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN
    init = b"\x61" + len(code).to_bytes(2, "big") + bytes.fromhex("80600a5f395ff3") + code
    fields = {
        "type": 2,
        "chainId": ledger.domain.chain_id,
        "nonce": nonce,
        "to": b"",
        "value": 0,
        "data": init,
        "gas": 10_000_000,
        "maxFeePerGas": 5 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    raw = bytes(Account.sign_transaction(fields, key.secret).raw_transaction)
    await node.ask("eth_sendRawTransaction", "0x" + raw.hex())

    async def there() -> bool:
        return await node.data("eth_getCode", to_hex(address), "latest") == code

    await until(there, "the code is deployed")
    return address


@contextlib.asynccontextmanager
async def node_that(answer: Callable[[web.Request], Any], port: int = 0) -> AsyncIterator[str]:
    """Something on a port that answers every POST in its own way."""
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Gate:
    """A node that passes all on to a real one, but keeps transactions back that `withhold` says, and may tell of
    another base fee. It answers for what it keeps back as if it had been taken.
    """

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self._session = ClientSession()
        self.seen: list[bytes] = []  # raw transactions, each once, in the order of their arrival
        self.withhold: Callable[[bytes], bool] = lambda raw: False
        self.deny: Callable[[bytes], bool] = lambda raw: False  # taken, but answered with an error
        self.base_fee: int | None = None

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["method"] == "eth_sendRawTransaction":
            raw = bytes.fromhex(asked["params"][0][2:])
            if raw not in self.seen:
                self.seen.append(raw)
            if self.withhold(raw):
                return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x" + keccak(raw).hex()})
        said = await self._pass_on(asked)
        if asked["method"] == "eth_sendRawTransaction" and self.deny(self.seen[-1]):
            error = {"code": -32603, "message": "internal error"}
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        if asked["method"] == "eth_getBlockByNumber" and self.base_fee is not None:
            said["result"]["baseFeePerGas"] = hex(self.base_fee)
        return web.json_response(said)

    async def ask(self, method: str, *params: object) -> Any:
        """Ask the node behind, past the gate."""
        return (await self._pass_on({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))["result"]

    async def _pass_on(self, asked: dict[str, Any]) -> Any:
        async with self._session.post(self._behind, json=asked) as response:
            return await response.json()

    async def close(self) -> None:
        await self._session.close()


@contextlib.asynccontextmanager
async def gate_before(manifest: Manifest) -> AsyncIterator[tuple[Gate, str]]:
    gate = Gate(manifest.url)
    try:
        async with node_that(gate.answer) as url:
            yield gate, url
    finally:
        await gate.close()


class Sent:
    """A signed transaction of type 2, as it went over the wire."""

    def __init__(self, raw: bytes) -> None:
        fields: list[Any] = rlp.decode(raw[1:])
        self.nonce, self.tip, self.most = (int.from_bytes(fields[at], "big") for at in (1, 2, 3))
        self.to, self.data = fields[5], fields[7]


async def until(done: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    """Wait for something that comes by itself."""
    for _ in range(int(seconds / 0.05)):
        found = done()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(what)
