"""What callers put into JSON-RPC parameters, checked: quantities, data, block numbers, calls, log filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.core.errors import LedgerError
from penstock.core.identity import ZERO_ADDRESS
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.execute import Request

MAX_ALTERNATIVES = 1_000  # addresses or topics in one log filter, as geth allows
_CALL_FIELDS = {  # those of the specification; prices are ignored, since calls are free
    *("from", "to", "gas", "value", "data", "input", "nonce", "type", "chainId", "accessList", "gasPrice"),
    *("maxFeePerGas", "maxPriorityFeePerGas"),
}


class BadParams(LedgerError):
    """A parameter that the method does not take (JSON-RPC -32602)."""


class LogFilter(msgspec.Struct, frozen=True):
    """The blocks `first`..`last`, the emitters (empty: any) and the topics (None: any) to look for."""

    first: int
    last: int
    addresses: Sequence[bytes]
    topics: Sequence[Sequence[bytes] | None]


def quantity(value: object, name: str, most: int = 2**256 - 1) -> int:
    """A number from hexadecimal text."""
    if not isinstance(value, str) or not value.startswith("0x") or not 3 <= len(value) <= 66:
        raise BadParams(f"{name} must be a quantity (0x and hexadecimal digits), not {_short(value)}")
    try:
        number = int(value[2:], 16) if value[2:].isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise BadParams(f"{name} must be a quantity of at most {hex(most)}, not {_short(value)}")
    return number


def number(value: object, name: str) -> int:
    """A number as test controls take it: a plain one or a quantity."""
    if type(value) is int and 0 <= value < 2**63:
        return value
    return quantity(value, name, 2**63 - 1)


def data(value: object, name: str, size: int | None = None) -> bytes:
    """Bytes from hexadecimal text, `size` of them if given."""
    if isinstance(value, str) and value.startswith("0x") and value[2:].isalnum() | (len(value) == 2):
        try:
            found = bytes.fromhex(value[2:])
        except ValueError:
            found = None
        if found is not None and size in (None, len(found)):
            return found
    want = "data (0x and two hexadecimal digits a byte)" if size is None else f"{size} bytes in hexadecimal"
    raise BadParams(f"{name} must be {want}, not {_short(value)}")


def block_number(chain: Chain, value: object) -> int | None:
    """A block's number from a tag, a quantity or an EIP-1898 object; None for the newest state.

    Every block of a devnet is final, so "safe" and "finalized" are the newest one.
    """
    if value in ("latest", "pending", "safe", "finalized"):
        return None
    if value == "earliest":
        return 0
    if isinstance(value, Mapping):
        if "blockHash" in value:
            found = chain.store.number_of(data(value["blockHash"], "blockHash", 32))
            if found is None:
                raise LedgerError("header for hash not found")
            return found
        return block_number(chain, value.get("blockNumber"))
    return quantity(value, "block", 2**63 - 1)


def known_block(chain: Chain, value: object) -> int | None:
    """As `block_number`, for a state that must exist."""
    found = block_number(chain, value)
    if found is not None and found > chain.head.block_number:
        raise LedgerError(f"header not found: block {found} is not made yet")
    return found


def request(value: object) -> Request:
    """What eth_call and eth_estimateGas execute."""
    if not isinstance(value, Mapping):
        raise BadParams(f"a call must be an object, not {_short(value)}")
    unknown = set(value) - _CALL_FIELDS
    if unknown:
        raise BadParams(f"a call has no field {sorted(unknown)[0]!r}")
    given = {name: field for name, field in value.items() if field is not None}
    body = data(given.get("input", given.get("data", "0x")), "input")
    if "input" in given and "data" in given and data(given["data"], "data") != body:
        raise BadParams("input and data differ; give one of them")
    return Request(
        to=data(given["to"], "to", 20) if "to" in given else b"",
        data=body,
        sender=data(given["from"], "from", 20) if "from" in given else ZERO_ADDRESS,
        value=quantity(given.get("value", "0x0"), "value"),
        gas=quantity(given["gas"], "gas", 2**63 - 1) if "gas" in given else None,
    )


def log_filter(chain: Chain, value: object) -> LogFilter:
    """What eth_getLogs looks for."""
    if not isinstance(value, Mapping):
        raise BadParams(f"a filter must be an object, not {_short(value)}")
    newest = int(chain.head.block_number)
    if value.get("blockHash") is not None:
        if value.get("fromBlock") is not None or value.get("toBlock") is not None:
            raise BadParams("a filter has blockHash, or fromBlock and toBlock")
        at = block_number(chain, {"blockHash": value["blockHash"]})
        first = last = newest if at is None else at
    else:
        bounds = [block_number(chain, value.get(name) or "latest") for name in ("fromBlock", "toBlock")]
        first, last = (newest if bound is None else bound for bound in bounds)
        if first > last:
            raise BadParams(f"fromBlock {first} is after toBlock {last}")
    topics = value.get("topics") or []
    if not isinstance(topics, list) or len(topics) > 4:
        raise BadParams("topics must be a list of at most four")
    return LogFilter(
        first,
        last,
        _alternatives(value.get("address"), "address", 20) or [],
        [_alternatives(topic, f"topic {at}", 32) for at, topic in enumerate(topics)],
    )


def _alternatives(value: Any, name: str, size: int) -> list[bytes] | None:
    if value is None or value == []:
        return None
    wanted = value if isinstance(value, list) else [value]
    if len(wanted) > MAX_ALTERNATIVES:
        raise BadParams(f"{name} has more than {MAX_ALTERNATIVES} alternatives")
    return [data(item, name, size) for item in wanted]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
