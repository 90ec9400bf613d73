"""The least that two processes can do to verify ticks: the sketch that `streams` is held against.

The same frames, byte for byte, over TLS on the same event loop: each tick a message of its own with its sequence number
and its preimage, read, verified with one hash, and acknowledged; a window bounds what is under way. No session, no
money, no meter, no journal. The chain is there before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from hashlib import sha256

import msgspec

from penstock.transports.certificate import contexts

HEADER = struct.Struct(">I")
TICK = struct.Struct(">BQI32s")  # kind, voucher, sequence number, preimage
ACK = struct.Struct(">Q")
TICKS = 600_000

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(tuple[int, int, tuple[bytes]]).decode


class Payee(asyncio.Protocol):
    """Verifies each tick, and acknowledges what came together."""

    def __init__(self, root: bytes) -> None:
        self._last, self._count, self._rest = root, 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        last, count, at, end = self._last, self._count, 0, len(data)
        while end - at >= 4:
            (length,) = HEADER.unpack_from(data, at)
            if end - at - 4 < length:
                break
            _, _, (tick,) = decode(data[at + 4 : at + 4 + length])
            _, _, sequence, preimage = TICK.unpack(tick)
            if sequence != count + 1 or sha256(preimage).digest() != last:
                raise SystemExit("a tick that does not verify")
            last, count = preimage, sequence
            at += 4 + length
        self._last, self._count, self._rest = last, count, data[at:]
        self._transport.write(ACK.pack(count))  # type: ignore[attr-defined]  # a transport that writes


class Payer(asyncio.Protocol):
    """Keeps the window full until the chain is used up."""

    def __init__(self, chain: list[bytes], window: int, done: asyncio.Future[float]) -> None:
        self._chain, self._window, self._done, self._sent, self._rest = chain, window, done, 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._began = transport, time.perf_counter()
        self._send(0)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) // ACK.size * ACK.size
        self._rest = data[whole:]
        if whole:
            self._send(ACK.unpack_from(data, whole - ACK.size)[0])

    def _send(self, acknowledged: int) -> None:
        last = len(self._chain) - 1
        if acknowledged == last:
            self._done.set_result(last / (time.perf_counter() - self._began))
            return
        chain, parts, upto = self._chain, [], min(acknowledged + self._window, last)
        for count in range(self._sent + 1, upto + 1):
            frame = encode((7, 10 * count, (TICK.pack(1, 1, count, chain[last - count]),)))
            parts += (HEADER.pack(len(frame)), frame)
        self._sent = max(self._sent, upto)
        if parts:
            self._transport.write(b"".join(parts))  # type: ignore[attr-defined]  # a transport that writes


def chain() -> list[bytes]:
    """A chain, its seed first and its root last."""
    hashes = [bytes(32)]
    for _ in range(TICKS):
        hashes.append(sha256(hashes[-1]).digest())
    return hashes


async def serve() -> None:
    """The payee's process, for one payer."""
    root, loop = chain()[-1], asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()

    class Once(Payee):
        def connection_lost(self, exc: Exception | None) -> None:
            gone.set_result(None)

    server = await loop.create_server(lambda: Once(root), "127.0.0.1", 0, ssl=contexts().server)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await gone
    server.close()
    print("{}", flush=True)


async def pay(port: int, window: int) -> float:
    """The payer's process: ticks a second."""
    hashes, loop = chain(), asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    context = contexts().client
    transport, _ = await loop.create_connection(
        lambda: Payer(hashes, window, done), "127.0.0.1", port, ssl=context, server_hostname=""
    )
    try:
        return await done
    finally:
        transport.close()
