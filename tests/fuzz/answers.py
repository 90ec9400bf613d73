"""Targets: what a ledger's node answers. One that is broken, or somebody else's, must not bring us down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from typing import Any, Self

from tests.core import pair

from penstock.core.errors import LedgerError
from penstock.core.escrow import EscrowDomain, EscrowParams, MeterReading, SignedReading, tariff_hash
from penstock.core.identity import ZERO_ADDRESS, Key, keccak
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.ledgers.abi import Interface, revert_reason
from penstock.ledgers.artifacts import load
from penstock.ledgers.escrow import EvmEscrows, params_words, signed_words, tariff_words
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.fees import Fees, first
from penstock.ledgers.jsonrpc import Node
from penstock.ledgers.sender import Sender

WORD = 32
_METER = Key(keccak(b"a meter"))
TARIFF = Tariff(10, (Step(Instant(0), 4), Step(Instant(1_000), 10)))
ESCROW = EscrowParams(
    EscrowDomain(31337, pair.DOMAIN.contract, pair.DOMAIN.token),
    pair.CONSUMER.address,
    pair.SUPPLIER.address,
    pair.CONSUMER.address,
    pair.SUPPLIER.address,
    _METER.address,
    tariff_hash(TARIFF),
    deposit=10_000,
    deadline=2_000_000_000,
    window=600,
    counter=1,
)
_READING = MeterReading(2, Instant(1_500), Quantity(9_000), (Quantity(6_000),), last=True)
FILED = SignedReading(_READING, _METER.sign(_READING.digest(ESCROW)))


class Canned:
    """Stands for the HTTP session: every question gets the next answer, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def post(self, *_: Any, **__: Any) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self) -> bytes:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def _finish(work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> Any:
    """Run a coroutine that waits for nothing but its turn."""
    steps = work.__await__()
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


@cache
def _node() -> tuple[Node, Canned]:
    return asyncio.run(_made())


async def _made() -> tuple[Node, Canned]:
    node, canned = Node("http://node"), Canned()
    await node.close()
    node._session = canned  # type: ignore[assignment]  # it answers as aiohttp's session would
    return node, canned


def answer(data: bytes) -> object:
    """One HTTP body: as a quantity, as bytes, as a record."""
    node, canned = _node()
    canned.answers = [data]
    outcomes = []
    for ask in (node.quantity, node.data, node.record):
        try:
            found = _finish(ask("eth_test"))
        except LedgerError as error:
            outcomes.append(f"{type(error).__name__} {len(error.line().splitlines())}")
        else:
            assert found is None or isinstance(found, (int, bytes, dict))
            assert not isinstance(found, int) or found >= 0
            outcomes.append(type(found).__name__)
    assert all(outcome[-2:] in (" 1",) or " " not in outcome for outcome in outcomes), "an error is one line"
    return outcomes


def answer_seeds() -> list[bytes]:
    """Results of each kind, and the errors of several nodes."""
    results: list[Any] = ["0x1", "0x", "0x" + "ab" * 32, None, {"number": "0x1", "baseFeePerGas": "0x7"}]
    errors: list[Any] = [
        {"code": -32000, "message": "insufficient funds"},
        {"code": 3, "message": "execution reverted", "data": _revert("channel: over").hex()},
        {"code": 3, "message": "reverted", "data": {"data": "0x" + _revert("no").hex()}},
    ]
    bodies = [{"jsonrpc": "2.0", "id": 1, "result": result} for result in results]
    bodies += [{"jsonrpc": "2.0", "id": 1, "error": error} for error in errors]
    return [json.dumps(body).encode() for body in bodies]


def _revert(reason: str) -> bytes:
    text = reason.encode()
    words = WORD.to_bytes(WORD, "big") + len(text).to_bytes(WORD, "big")
    return keccak(b"Error(string)")[:4] + words + text.ljust(-(-len(text) // WORD) * WORD, b"\0")


@cache
def _interfaces() -> tuple[Interface, ...]:
    return tuple(Interface(load(name)["abi"]) for name in ("Channel", "CryptoEuro"))


def returned(data: bytes) -> object:
    """What a contract returned: the first byte names the function (or event, or a revert), the rest is its data."""
    if not data:
        return ""
    kind, body = data[0], data[1:]
    channel, token = _interfaces()
    if kind >= 128:
        reason = revert_reason(body)
        assert isinstance(reason, str)
        return bool(reason)
    interface = channel if kind < 64 else token
    if kind % 2:
        names = list(interface._events)
        found = interface.event(names[kind // 2 % len(names)], body)
        return found is None or found[0]
    names_ = list(interface._functions)
    name = names_[kind // 2 % len(names_)]
    return name, len(interface.decode(name, body))


def returned_seeds() -> list[bytes]:
    """Every function and event with a few words, and with a text; a revert with a reason, and a panic."""
    text = _revert("EUR")[4:]
    words = b"".join(value.to_bytes(WORD, "big") for value in (1, 6, 2**96 - 1, 0, 27, 2**160 - 1, 7, 8))
    seeds = [bytes((kind,)) + body for kind in (*range(0, 40, 3), *range(64, 100, 3)) for body in (words, text)]
    panic = keccak(b"Panic(uint256)")[:4] + (0x11).to_bytes(WORD, "big")
    return [*seeds, b"\x80" + _revert("channel: over"), b"\x80" + panic]


def ledger(data: bytes) -> object:
    """A JSON array: which question, then the results that the node gives, one after the other."""
    try:
        asked = json.loads(data)
        which, results = asked[0], asked[1:]
        bodies = [json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode() for result in results]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "no case"
    if not bodies or type(which) is not int:
        return "no case"
    _node()[1].answers = bodies
    it, escrows = _ledger(), _escrows()
    it._sender._market.stir()  # it would use the last case's quotation
    which %= len(_QUESTIONS) + len(_ASKED_OF_ESCROWS)
    if which < len(_QUESTIONS):
        return which, str(type(_finish(_QUESTIONS[which](it))))
    found = _finish(_ASKED_OF_ESCROWS[which - len(_QUESTIONS)](escrows))
    assert not isinstance(found, list) or found in ([], [FILED]), "a reading that no meter signed"
    return which, str(type(found))


@cache
def _ledger() -> EvmLedger:
    node, _ = _node()
    return EvmLedger(node, Sender(node, 31337), pair.DOMAIN, 3)


_QUESTIONS: tuple[Callable[[EvmLedger], Coroutine[Any, Any, object]], ...] = (
    lambda it: it.channel(pair.PARAMS),
    lambda it: it.final(pair.PARAMS),
    lambda it: it.token(),
    lambda it: it.now(),
    lambda it: it.gas_price(),
    lambda it: it.next_counter(pair.CONSUMER.address),
    lambda it: it._balance(pair.CONSUMER.address),
    lambda it: it._token.balance(pair.CONSUMER.address),
    lambda it: _deadline(it),
)


@cache
def _escrows() -> EvmEscrows:
    node, _ = _node()
    return EvmEscrows(node, Sender(node, 31337), ESCROW.domain, 3)


_ASKED_OF_ESCROWS: tuple[Callable[[EvmEscrows], Coroutine[Any, Any, object]], ...] = (
    lambda it: it.escrow(ESCROW),
    lambda it: it.final(ESCROW),
    lambda it: it.filed(ESCROW),
)


async def _deadline(it: EvmLedger) -> object:
    """What an offer is made of, and the nonce under which it is sent."""
    quote = await it._sender._market.quote()
    return first(quote, Fees()), await it._sender._next_nonce(ZERO_ADDRESS)


def ledger_seeds() -> list[bytes]:
    """Each question with answers that fit it."""
    word = "0x" + "".join(f"{value:064x}" for value in (1 << 232 | 1000, 5, 7))
    text = "0x" + _revert("EUR")[4:].hex()
    six, block = "0x" + f"{6:064x}", {"number": "0x9", "timestamp": "0x64", "baseFeePerGas": "0x7"}
    cases: list[list[Any]] = [
        [0, word, "0x9", word],
        [1, word, "0x9", word],
        [2, text, six],
        [3, block],
        [4, block, "0x1"],
        [5, word],
        [6, word],
        [7, six],
        [8, block, "0x1", "0x5"],
    ]
    filing = {"input": "0x" + _filing().hex()}
    log, parent = {"transactionHash": "0x" + "ab" * 32}, {"timestamp": "0x0"}
    open_, ended = ("0x" + f"{flags << 232 | 7 << 96 | 9:064x}" for flags in (1, 9))
    cases += [
        [9, open_, "0x9", open_],
        [10, ended, "0x9", ended],
        [11, block, "0x1", parent, parent, [log, log], filing],
    ]
    return [json.dumps(case).encode() for case in cases]


def _filing() -> bytes:
    """The calldata of a release, in that of a contract that passes it on."""
    words = (params_words(ESCROW), tariff_words(TARIFF), *signed_words(FILED))
    return b"\1" * 36 + _escrows()._contract.encode("release", *words)
