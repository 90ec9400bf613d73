"""anvil, a real Ethereum node, in a process of its own: started, asked, stopped, and made to misbehave.

It stands in for the devnet's chain wherever `tests/contracts/world.py` wants one. Its methods outside JSON-RPC's
standard are those of anvil 1.7 (`evm_*` and `anvil_*`); `package-lock.json` beside this file fixes the version.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.core.errors import TransactionFailed
from penstock.core.identity import to_hex
from penstock.ledgers.devnet.execute import Request, Reverted
from penstock.ledgers.devnet.rules import GAS_LIMIT

CHAIN_ID = 31_337
DEADLINE = 10.0  # seconds for anything at all to happen
INSTALLED = Path(__file__).parents[2] / ".venv" / "anvil" / "node_modules" / "@foundry-rs"


class Refused(TransactionFailed):
    """The node answered with an error that is no revert; `code` is JSON-RPC's."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message}")
        self.code = code


def program() -> Path:
    """The binary for this machine, which npm has put into a package named after the platform.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = [path for name in ("anvil", "anvil.exe") for path in INSTALLED.glob(f"anvil-*/bin/{name}")]
    if not found:
        raise FileNotFoundError("anvil is not installed: run `make integration`, which fetches it from npm")
    return found[0]


class Anvil:
    """A node under Prague rules on a free port of this machine. Whoever starts one stops it."""

    def __init__(self, directory: Path, start: int | None = None) -> None:
        """A new chain without accounts, whose state is kept in `directory` over a restart.

        With `start` (seconds) chain time stands still there, and moves by `increase_time` alone; else it is the clock.
        """
        self.chain_id = CHAIN_ID
        self._state = directory / "anvil.json"
        self._output = directory / "anvil.log"
        self._start, self._now = start, start
        self._ahead = 0  # seconds by which chain time has jumped, where it is the clock
        self._points: dict[int, tuple[int | None, int]] = {}  # what these two were, by snapshot
        self._process: subprocess.Popen[str] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self.port = 0
        self._run()

    @property
    def url(self) -> str:
        """Where it answers JSON-RPC."""
        return f"http://127.0.0.1:{self.port}"

    # The process

    def _run(self) -> None:
        arguments = ["--port", str(self.port), "--chain-id", str(CHAIN_ID), "--hardfork", "prague", "--accounts", "0"]
        arguments += ["--gas-limit", str(GAS_LIMIT), "--state", str(self._state), "--preserve-historical-states"]
        if self._start is not None:
            arguments += ["--timestamp", str(self._start)]
        # Its own log goes to a file: nobody reads a pipe once the port is known, and a full one would stop the node.
        with self._output.open("w") as output:
            self._process = subprocess.Popen([program(), *arguments], stdout=output, stderr=output, text=True)
        self.port = self._listening()
        if self._now is not None:
            self.ask("anvil_setBlockTimestampInterval", 0)
        self._keep_time()

    def _listening(self) -> int:
        """The port, once it can be connected to."""
        assert self._process is not None
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and self._process.poll() is None:
            for line in self._output.read_text().splitlines():
                if line.startswith("Listening on "):
                    return int(line.rpartition(":")[2])
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"anvil did not start: {self._output.read_text()[-300:]}")

    def stop(self) -> None:
        """End it as SIGTERM does: it writes its blocks and state (not its pool) into its directory."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as kill -9 does: all since the last `stop` is lost."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE)
            self._process = None

    def start(self) -> None:
        """Go on with what `stop` kept, at the same port."""
        assert self._process is None, "it runs already"
        self._points.clear()
        self._run()

    def restart(self) -> None:
        """`stop`, and `start` again: it answers nothing in between, and its pool is empty afterwards."""
        self.stop()
        self.start()

    # Questions

    def ask(self, method: str, *params: object) -> Any:
        """The result of a JSON-RPC method.

        Raises:
            Reverted: a contract reverted.
            Refused: the node answered with another error.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3 * DEADLINE)
        self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())
        if "error" not in answer:
            return answer["result"]
        error = answer["error"]
        if error["code"] == 3:  # "execution reverted", as geth numbers it
            raise Reverted(bytes.fromhex((error.get("data") or "0x")[2:]))
        raise Refused(method, error["code"], error["message"])

    def call(self, request: Request) -> bytes:
        """What a call returns in the block to come. Raises Reverted."""
        return _raw(self.ask("eth_call", _wire(request), "pending"))

    def nonce(self, address: bytes) -> int:
        """An account's next nonce after the newest block."""
        return int(self.ask("eth_getTransactionCount", to_hex(address), "latest"), 16)

    def balance(self, address: bytes) -> int:
        """An account's wei."""
        return int(self.ask("eth_getBalance", to_hex(address), "latest"), 16)

    def code(self, address: bytes) -> bytes:
        """A contract's code; empty for an account without."""
        return _raw(self.ask("eth_getCode", to_hex(address), "latest"))

    def receipt(self, tx_hash: bytes) -> dict[str, Any] | None:
        """A mined transaction's receipt in wire form."""
        found: dict[str, Any] | None = self.ask("eth_getTransactionReceipt", "0x" + tx_hash.hex())
        return found

    def height(self) -> int:
        """The newest block's number."""
        return int(self.ask("eth_blockNumber"), 16)

    def block(self, number: int | None = None) -> dict[str, Any]:
        """A block (None: the newest) in wire form, with its transactions' hashes."""
        found: dict[str, Any] = self.ask("eth_getBlockByNumber", "latest" if number is None else hex(number), False)
        return found

    # Transactions and blocks

    def submit(self, raw: bytes) -> bytes:
        """Hand it a signed transaction; returns the hash (32 bytes). It may wait in the pool."""
        return _raw(self.ask("eth_sendRawTransaction", "0x" + raw.hex()))

    def send_raw(self, raw: bytes) -> bytes:
        """`submit`, and wait until it is in a block."""
        tx_hash = self.submit(raw)
        self.mined(tx_hash)
        return tx_hash

    def mined(self, tx_hash: bytes) -> dict[str, Any]:
        """The receipt of a transaction that gets into a block now."""
        end = time.monotonic() + DEADLINE
        while (found := self.receipt(tx_hash)) is None:
            assert time.monotonic() < end, "not mined: is automine off?"
            time.sleep(0.002)
        return found

    def waiting(self) -> list[str]:
        """The hashes (hex) of the transactions in the pool."""
        pool = self.ask("txpool_content")
        return [found["hash"] for kind in pool.values() for owned in kind.values() for found in owned.values()]

    def drop(self, tx_hash: str) -> None:
        """Forget a waiting transaction, as a node with a full pool does."""
        self.ask("anvil_dropTransaction", tx_hash)

    def set_automine(self, on: bool) -> None:
        """Whether each transaction gets a block at once; if not, `mine` makes them."""
        self.ask("evm_setAutomine", on)

    def mine(self, blocks: int = 1) -> None:
        """Make blocks; the waiting transactions that can pay get into them."""
        for _ in range(blocks):
            self.ask("evm_mine")

    def set_base_fee(self, wei: int) -> None:
        """The base fee (wei a gas) of the next block; later ones follow from it by EIP-1559."""
        self.ask("anvil_setNextBlockBaseFeePerGas", hex(wei))

    def reorg(self, depth: int, transactions: Sequence[tuple[bytes, int]] = ()) -> None:
        """Put as many other blocks in the place of the newest `depth`.

        What was in those blocks is gone for good; `transactions` are (signed, place): into the block at that place,
        0 being the lowest.
        """
        self.ask("anvil_reorg", depth, [["0x" + raw.hex(), place] for raw, place in transactions])
        self._keep_time()

    def set_balance(self, address: bytes, wei: int) -> None:
        """Give an account so much ether."""
        self.ask("anvil_setBalance", to_hex(address), hex(wei))

    def fund(self, balances: Mapping[bytes, int]) -> Anvil:
        """Give accounts so much ether (wei); returns the node itself, for a World to stand on."""
        for address, wei in balances.items():
            self.set_balance(address, wei)
        return self

    # Time

    def now(self) -> int:
        """The timestamp that the next block would carry (seconds)."""
        if self._now is not None:
            return self._now
        return int(self.ask("eth_getBlockByNumber", "pending", False)["timestamp"], 16)

    def increase_time(self, seconds: int) -> None:
        """Let chain time jump ahead, for calls and from the next block on."""
        if self._now is None:
            self._ahead += seconds
        else:
            self._now += seconds
        self._keep_time()

    def _keep_time(self) -> None:
        """Tell the node its time again, which it forgets in a reorg, in a restart, and when it goes back."""
        if self._now is not None:
            self.ask("evm_setNextBlockTimestamp", self._now)
        elif (behind := int(time.time()) + self._ahead - self.now()) > 0:
            self.ask("evm_increaseTime", behind)

    # Snapshots

    def snapshot(self) -> int:
        """Remember this point; returns its number."""
        point = int(self.ask("evm_snapshot"), 16)
        self._points[point] = self._now, self._ahead
        return point

    def revert(self, snapshot: int) -> bool:
        """Go back to a snapshot, which is used up with all later ones; False if there is none with this number."""
        if not self.ask("evm_revert", hex(snapshot)):
            return False
        self._now, self._ahead = self._points[snapshot]
        self._keep_time()
        return True


def _raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _wire(request: Request) -> dict[str, str]:
    given = {"from": to_hex(request.sender), "data": "0x" + request.data.hex(), "value": hex(request.value)}
    if request.to:
        given["to"] = to_hex(request.to)
    if request.gas is not None:
        given["gas"] = hex(request.gas)
    return given
