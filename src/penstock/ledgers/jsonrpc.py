"""A JSON-RPC node as seen from here: one question, one checked answer, every failure a typed error."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponseError, ClientSession, ClientTimeout, TCPConnector

from penstock.core.errors import LedgerError, LedgerUnreachable

TIMEOUT = 30.0  # seconds for one answer; a devnet answers a submission only when its block is made
CONNECTIONS = 128
_LONGEST_NUMBER = 66  # characters: 0x and 32 bytes
_PAUSES = (0.0, 0.1, 0.4)  # seconds before each try; a kept-alive connection may just have been closed by the node


class NodeRefused(LedgerError):
    """The node answered with a JSON-RPC error; `data` is what a reverting contract returned."""

    def __init__(self, method: str, code: int, message: str, data: bytes) -> None:
        super().__init__(f"the node refuses {method}: {message}")
        self.code = code
        self.message = message
        self.data = data


class Node:
    """A JSON-RPC endpoint over HTTP. Close it when done."""

    def __init__(self, url: str) -> None:
        """`url` is http(s)://...; nothing is sent yet. Must be called inside a running event loop."""
        self.place = _place(url)
        self._url = url
        # Not web3's provider: it takes a lock in a thread for each question, and a cancelled one may leave it locked.
        self._session = ClientSession(
            raise_for_status=True, connector=TCPConnector(limit=CONNECTIONS), timeout=ClientTimeout(total=TIMEOUT)
        )
        self._asked = 0

    async def ask(self, method: str, *params: object) -> Any:
        """The result of `method`. Asking twice does no harm: a transaction has one hash and one nonce.

        Raises:
            LedgerUnreachable: no answer, or one that is no JSON-RPC.
            NodeRefused: the node answered with an error.
        """
        for tries_left, pause in zip(reversed(range(len(_PAUSES))), _PAUSES, strict=True):
            await asyncio.sleep(pause)
            try:
                answer = await self._post(method, params)
                break
            except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, a URL that is none
                raise self._rubbish(method) from error
            except (ClientError, OSError, TimeoutError) as error:
                if not tries_left:
                    raise LedgerUnreachable(
                        f"no answer from the node at {self.place} ({_cause(error)})",
                        "check the URL, and that the node runs",
                    ) from error
        if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
            raise self._rubbish(method)
        if "error" in answer:
            raise self._refusal(method, answer["error"])
        return answer["result"]

    async def _post(self, method: str, params: tuple[object, ...]) -> Any:
        self._asked += 1
        question = {"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params}
        async with self._session.post(self._url, json=question) as response:
            return json.loads(await response.read())

    async def quantity(self, method: str, *params: object) -> int:
        """The result of `method`, which must be a quantity."""
        return self.number(method, await self.ask(method, *params))

    async def data(self, method: str, *params: object) -> bytes:
        """The result of `method`, which must be bytes."""
        return self.bytes_of(method, await self.ask(method, *params))

    async def record(self, method: str, *params: object) -> dict[str, Any] | None:
        """The result of `method`, which must be an object, or None where the node knows of none."""
        result = await self.ask(method, *params)
        if result is not None and not isinstance(result, dict):
            raise self._rubbish(method)
        return result

    def number(self, method: str, value: object) -> int:
        """A quantity in an answer to `method`, checked: at most a uint256."""
        try:
            if not isinstance(value, str) or not value.startswith("0x") or len(value) > _LONGEST_NUMBER:
                raise ValueError
            return int(value, 16)
        except ValueError as error:
            raise self._rubbish(method) from error

    def bytes_of(self, method: str, value: object) -> bytes:
        """Bytes in an answer to `method`, checked."""
        try:
            if not isinstance(value, str) or not value.startswith("0x"):
                raise ValueError
            return bytes.fromhex(value[2:])
        except ValueError as error:
            raise self._rubbish(method) from error

    async def close(self) -> None:
        """Drop the connections."""
        await self._session.close()

    def _rubbish(self, method: str) -> LedgerUnreachable:
        what = f"{self.place} does not answer {method} as an Ethereum node would"
        return LedgerUnreachable(what, "check that the URL is a JSON-RPC node's")

    def _refusal(self, method: str, error: Any) -> LedgerError:
        if not isinstance(error, dict) or not isinstance(error.get("code"), int):
            return self._rubbish(method)
        data = error.get("data")
        if isinstance(data, dict):  # Hardhat nests it
            data = data.get("data")
        try:
            returned = bytes.fromhex(data[2:]) if isinstance(data, str) and data.startswith("0x") else b""
        except ValueError:
            returned = b""
        words = error.get("message")
        said = " ".join(words.split()) if isinstance(words, str) else "for no reason that it tells"
        return NodeRefused(method, error["code"], said[:200], returned)


def _place(url: str) -> str:
    """The part of a URL that may be told: what comes after the host, and before it, is often a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.partition("://")[0] + "://..."
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def _cause(error: BaseException) -> str:
    if isinstance(error, ClientResponseError):  # its own text names the whole URL
        return f"{error.status} {error.message}"
    return " ".join(str(error).split())[:120] or type(error).__name__
