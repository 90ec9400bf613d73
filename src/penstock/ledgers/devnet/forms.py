"""Wire forms of the Ethereum JSON-RPC: blocks, transactions, receipts and logs as JSON-ready dicts.

Source: the Ethereum execution API specification (ethereum.github.io/execution-apis): quantities are 0x and the fewest
hexadecimal digits, data is 0x and two digits a byte.
"""

from __future__ import annotations

from typing import Any

from penstock.ledgers.devnet.rules import Block, Computation, Header, Receipt, Transaction, encoded

Form = dict[str, Any]

NO_NONCE = "0x" + "00" * 8


def data(value: bytes) -> str:
    """Bytes on the wire."""
    return "0x" + value.hex()


def topic_bytes(topic: int) -> bytes:
    """A topic (py-evm keeps integers) as 32 bytes."""
    return topic.to_bytes(32, "big")


def header_form(header: Header) -> Form:
    """A block's header, the fields of Prague."""
    return {
        "number": hex(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": NO_NONCE,
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": f"0x{header.bloom:0512x}",
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": data(header.extra_data),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "mixHash": data(header.mix_hash),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "withdrawalsRoot": data(header.withdrawals_root),
        "blobGasUsed": hex(header.blob_gas_used),
        "excessBlobGas": hex(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root),
        "requestsHash": data(header.requests_hash),
        "uncles": [],
        "withdrawals": [],
    }


def block_form(block: Block) -> Form:
    """A block without its transactions, which are put in when it is asked for."""
    return {**header_form(block.header), "size": hex(len(encoded(block)))}


def price_of(transaction: Transaction, base_fee: int) -> int:
    """What a transaction pays for each gas (wei) in a block of this base fee."""
    return int(min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + base_fee))


def transaction_form(transaction: Transaction, header: Header | None, position: int = 0) -> Form:
    """A signed transaction: in the block of `header`, or still pending (None)."""
    kind = transaction.type_id or 0
    form: Form = {
        "hash": data(transaction.hash),
        "type": hex(kind),
        "blockHash": data(header.hash) if header else None,
        "blockNumber": hex(header.block_number) if header else None,
        "transactionIndex": hex(position) if header else None,
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas),
        "value": hex(transaction.value),
        "input": data(transaction.data),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }
    if transaction.chain_id is not None:
        form["chainId"] = hex(transaction.chain_id)
    if kind == 0:
        return {**form, "gasPrice": hex(transaction.gas_price), "v": hex(transaction.v)}
    form["v"] = form["yParity"] = hex(transaction.y_parity)
    form["accessList"] = [
        {"address": data(address), "storageKeys": [data(slot.to_bytes(32, "big")) for slot in slots]}
        for address, slots in transaction.access_list
    ]
    if kind == 1:
        return {**form, "gasPrice": hex(transaction.gas_price)}
    if kind == 4:
        form["authorizationList"] = [
            {
                "chainId": hex(item.chain_id),
                "address": data(item.address),
                "nonce": hex(item.nonce),
                "yParity": hex(item.y_parity),
                "r": hex(item.r),
                "s": hex(item.s),
            }
            for item in transaction.authorization_list
        ]
    base_fee = header.base_fee_per_gas if header else 0
    return {
        **form,
        "maxFeePerGas": hex(transaction.max_fee_per_gas),
        "maxPriorityFeePerGas": hex(transaction.max_priority_fee_per_gas),
        "gasPrice": hex(price_of(transaction, base_fee) if header else transaction.max_fee_per_gas),
    }


def receipt_form(
    transaction: Transaction,
    receipt: Receipt,
    computation: Computation,
    header: Header,
    position: int,
    gas_before: int,
    logs_before: int,
) -> Form:
    """A receipt; `gas_before` and `logs_before` are those of the block's earlier transactions."""
    return {
        "transactionHash": data(transaction.hash),
        "transactionIndex": hex(position),
        "blockHash": data(header.hash),
        "blockNumber": hex(header.block_number),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "contractAddress": None if transaction.to else data(computation.msg.storage_address),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "gasUsed": hex(receipt.gas_used - gas_before),
        "effectiveGasPrice": hex(price_of(transaction, header.base_fee_per_gas)),
        "type": hex(transaction.type_id or 0),
        "status": "0x1" if computation.is_success else "0x0",
        "logsBloom": f"0x{receipt.bloom:0512x}",
        "logs": [
            {
                "address": data(log.address),
                "topics": [data(topic_bytes(topic)) for topic in log.topics],
                "data": data(log.data),
                "blockHash": data(header.hash),
                "blockNumber": hex(header.block_number),
                "blockTimestamp": hex(header.timestamp),
                "transactionHash": data(transaction.hash),
                "transactionIndex": hex(position),
                "logIndex": hex(logs_before + at),
                "removed": False,
            }
            for at, log in enumerate(receipt.logs)
        ],
    }
