"""The node does what the tests that lean on it take for granted."""

from __future__ import annotations

from eth_account import Account

from penstock.core.identity import Key, parse_address
from penstock.ledgers.devnet.execute import Request
from penstock.ledgers.devnet.manifest import Manifest, dev_key

from .anvil import Anvil

PAYEE = b"\x22" * 20


def payment(anvil: Anvil, key: Key, wei: int, price: int = 2 * 10**9, nonce: int | None = None) -> bytes:
    """A signed payment of ether to PAYEE."""
    fields = {
        "chainId": anvil.chain_id,
        "nonce": anvil.nonce(key.address) if nonce is None else nonce,
        "to": PAYEE,
        "value": wei,
        "gas": 21_000,
        "gasPrice": price,
    }
    return bytes(Account.sign_transaction(fields, key.secret).raw_transaction)


def test_a_reorg_takes_a_transaction_out_and_puts_another_in(anvil: Anvil, manifest: Manifest) -> None:
    height, key = anvil.height(), dev_key(0)
    first = anvil.send_raw(payment(anvil, key, 5))
    anvil.mine(2)
    old = anvil.block()["hash"]
    assert anvil.balance(PAYEE) == 5
    anvil.reorg(3, [(payment(anvil, key, 7, nonce=0), 1)])
    assert (anvil.height(), anvil.balance(PAYEE)) == (height + 3, 7)
    assert anvil.receipt(first) is None
    assert anvil.block()["hash"] != old
    assert [len(anvil.block(height + above)["transactions"]) for above in (1, 2, 3)] == [0, 1, 0]
    assert anvil.waiting() == []


def test_a_restart_keeps_the_chain_and_its_past_but_not_the_pool(anvil: Anvil, manifest: Manifest) -> None:
    key, port = dev_key(0), anvil.port
    mined = anvil.send_raw(payment(anvil, key, 5))
    height = anvil.height()
    anvil.mine(3)
    anvil.set_automine(False)
    waiting = anvil.submit(payment(anvil, key, 6))
    assert anvil.waiting() == ["0x" + waiting.hex()]
    newest = anvil.block()
    anvil.restart()
    assert (anvil.port, anvil.block()["hash"], anvil.waiting()) == (port, newest["hash"], [])
    assert anvil.receipt(mined) is not None
    assert int(anvil.ask("eth_getBalance", "0x" + PAYEE.hex(), hex(height - 1)), 16) == 0
    assert int(anvil.ask("eth_getBalance", "0x" + PAYEE.hex(), hex(height)), 16) == 5
    assert anvil.code(parse_address(manifest.contracts["CryptoEuroChannel"]))
    anvil.send_raw(payment(anvil, key, 1))  # it mines again
    assert int(anvil.block()["timestamp"], 16) >= int(newest["timestamp"], 16)


def test_a_dear_block_leaves_a_cheap_transaction_waiting(anvil: Anvil, manifest: Manifest) -> None:
    key = dev_key(0)
    anvil.set_automine(False)
    cheap = anvil.submit(payment(anvil, key, 5))
    anvil.set_base_fee(50 * 10**9)
    anvil.mine()
    assert anvil.receipt(cheap) is None
    dear = anvil.submit(payment(anvil, key, 5, price=200 * 10**9))
    anvil.mine()
    assert anvil.receipt(dear) is not None
    assert (anvil.receipt(cheap), anvil.waiting()) == (None, [])


def test_a_forgotten_transaction_is_in_no_block(anvil: Anvil, manifest: Manifest) -> None:
    anvil.set_automine(False)
    forgotten = anvil.submit(payment(anvil, dev_key(0), 5))
    anvil.drop("0x" + forgotten.hex())
    anvil.mine()
    assert (anvil.receipt(forgotten), anvil.balance(PAYEE)) == (None, 0)


def test_time_that_has_run_ahead_stays_so(anvil: Anvil, manifest: Manifest) -> None:
    before = anvil.now()
    anvil.increase_time(10_000)
    assert 10_000 <= anvil.now() - before < 10_030
    clock = Request(data=bytes.fromhex("4260005260206000f3"))  # returns the block's timestamp
    assert int.from_bytes(anvil.call(clock), "big") - before >= 10_000
    anvil.mine(3)
    point = anvil.snapshot()
    for act in (lambda: anvil.reorg(2), anvil.restart, lambda: anvil.revert(point)):
        anvil.mine()
        act()
        assert 10_000 <= anvil.now() - before < 10_030
        anvil.mine()
        assert 10_000 <= int(anvil.block()["timestamp"], 16) - before < 10_030
