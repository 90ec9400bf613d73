"""What an owner of tokens signs so that somebody else may fetch them: EIP-3009."""

from __future__ import annotations

from penstock.core.identity import Address, Digest, keccak

TYPE = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


def transfer_digest(
    separator: bytes, owner: Address, receiver: Address, value: int, after: int, before: int, nonce: bytes
) -> Digest:
    """The digest under a token's EIP-712 domain. Value in token units, times in seconds, the nonce 32 bytes."""
    words = (owner.rjust(32, b"\0"), receiver.rjust(32, b"\0"))
    numbers = b"".join(number.to_bytes(32, "big") for number in (value, after, before))
    return Digest(keccak(b"\x19\x01" + separator + keccak(TYPE + b"".join(words) + numbers + nonce)))
