"""The machine that proves the contract, with its lives on anvil: another EVM agrees with the law, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from penstock.core.identity import Address, to_hex
from penstock.ledgers.devnet.execute import Request, Reverted

from ..contracts.ground import SKIPPED, Life, Outcome, ground
from ..contracts.moves import Moves
from ..contracts.play import Play
from ..contracts.world import GAS, START, Contract
from .anvil import Anvil

LIVES, LENGTH = 12, 40


class LifeOnAnvil(Life):
    """A life whose transactions are mined by the node, a block for each."""

    def __init__(self, node: Anvil) -> None:
        self._node, self.now = node, START

    def set_time(self, now: int) -> None:
        self._node.increase_time(now - self.now)
        self.now = now

    def snapshot(self) -> Any:
        return self.now, self._node.snapshot()

    def revert(self, point: Any) -> None:
        self.now, number = point
        self._node.revert(number)

    def run(self, sender: Address, to: Contract, data: bytes) -> Outcome:
        fields = {"from": to_hex(sender), "to": to_hex(to.address), "data": "0x" + data.hex(), "gas": hex(GAS)}
        receipt = self._node.mined(bytes.fromhex(self._node.ask("eth_sendTransaction", fields)[2:]))
        if receipt["status"] != "0x1":
            return Outcome(False, self._reason(sender, to, data), [])
        skips = [log["topics"][1] for log in receipt["logs"] if log["topics"][:1] == ["0x" + SKIPPED.hex()]]
        return Outcome(True, "", [bytes.fromhex(id[2:]) for id in skips])

    def _reason(self, sender: Address, to: Contract, data: bytes) -> str:
        try:
            self._node.call(Request(to=to.address, data=data, sender=sender, gas=GAS))
        except Reverted as error:
            return error.reason
        raise AssertionError("a transaction failed that succeeds as a call")

    def call(self, to: Contract, name: str, *args: Any) -> bytes:
        return self._node.call(Request(to=to.address, data=to.calldata(name, args)))

    def _read(self, contract: Contract, slot: int) -> int:
        return int(self._node.ask("eth_getStorageAt", to_hex(contract.address), hex(slot), "latest"), 16)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Anvil]:
    """The machine's ground on anvil: the very transactions that made it on the devnet, and thus its addresses."""
    chain = ground().chain
    made = Anvil(tmp_path, START)
    try:
        made.fund({person.address: chain.balance(person.address, 0) for person in ground().people})
        for number in range(1, chain.head.block_number + 1):
            for transaction in chain._evm.get_canonical_block_by_number(number).transactions:
                made.send_raw(transaction.encode())
        made.ask("anvil_autoImpersonateAccount", True)
        yield made
    finally:
        made.kill()


def test_the_contract_keeps_its_law_on_anvil(node: Anvil) -> None:
    tally: Counter[tuple[str, str]] = Counter()

    class Machine(Moves):
        def begin(self) -> Play:
            self.point = node.snapshot()
            play = Play(tally)
            play.life = LifeOnAnvil(node)
            return play

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:  # a life that fails is lived again
                node.revert(self.point)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=LENGTH,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert sum(count for (_, how), count in tally.items() if how == "allowed") > 2 * LIVES
    assert sum(count for (_, how), count in tally.items() if how == "refused") > 2 * LIVES
