"""How two machines prove their keys to each other over an encrypted connection that proves nothing yet.

Each sends a hello, then a signature over both hellos, both certificates and its own role. A machine in the middle has
other certificates on each side, so no signature that it could pass on fits. The hellos are signed whole: nobody can
take a version out of them. Nothing here does I/O; the nonce is an argument.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from penstock.core.errors import BadFrame, BadSignature, PeerRefused
from penstock.core.identity import Address, Digest, Key, purpose_digest, recover, to_hex

VERSIONS = (1,)  # of the protocol above the link, ascending

Role = Literal["client", "server"]

_MAGIC = b"penstock"
_MAX_VERSIONS = 16


class Hello(NamedTuple):
    """What a side says first: the versions it speaks (ascending), 32 fresh bytes, and the address it will prove."""

    versions: tuple[int, ...]
    nonce: bytes
    address: Address

    def encode(self) -> bytes:
        """magic "penstock" | uint8 count | count * uint16 version | 32 bytes nonce | 20 bytes address."""
        count = len(self.versions)
        return _MAGIC + struct.pack(f">B{count}H", count, *self.versions) + self.nonce + self.address


def parse_hello(data: bytes) -> Hello:
    """The hello in `data`.

    Raises:
        BadFrame: another magic, a wrong length, no versions, or versions that do not ascend.
    """
    if data[:8] != _MAGIC or len(data) < 9:
        raise BadFrame("the peer does not speak Penstock", "check host and port")
    count = data[8]
    if not 1 <= count <= _MAX_VERSIONS or len(data) != 9 + 2 * count + 52:
        raise BadFrame("a hello of the wrong length")
    versions = struct.unpack_from(f">{count}H", data, 9)
    if list(versions) != sorted(set(versions)):
        raise BadFrame("a hello whose versions do not ascend")
    return Hello(versions, data[-52:-20], Address(data[-20:]))


def common_version(ours: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    """The highest version that both speak.

    Raises:
        PeerRefused: there is none.
    """
    both = set(ours) & set(theirs)
    if not both:
        raise PeerRefused(
            f"no common protocol version: we speak {_listed(ours)}, the peer {_listed(theirs)}",
            "upgrade the older side",
        )
    return max(both)


class Transcript(NamedTuple):
    """All that both sides sign: the hellos as sent, and the SHA-256 of the DER certificates, the client's first."""

    client_hello: bytes
    server_hello: bytes
    client_certificate: bytes
    server_certificate: bytes

    def digest(self, role: Role) -> Digest:
        """What the side in `role` signs. The role keeps a signature from being sent back to its maker."""
        return purpose_digest("penstock/link/1", role.encode(), *self)

    def prove(self, key: Key, role: Role) -> bytes:
        """The 65-byte proof of the side in `role`."""
        return key.sign(self.digest(role))

    def check(self, proof: bytes, role: Role, address: Address) -> None:
        """Pass where `proof` was made by the key of `address` in `role`, over this very connection.

        Raises:
            BadSignature: it was not. A machine in the middle shows itself so.
        """
        if recover(self.digest(role), proof) != address:
            raise BadSignature(
                f"the peer cannot prove that it is {to_hex(address)} on this connection",
                "somebody may be in between: try another network",
            )


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))
