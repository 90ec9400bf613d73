"""Links over real sockets: who is there, and what a bad peer can do."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from penstock.core.errors import BadFrame, BadSignature, LinkLost, PeerRefused, PenstockError, UsageError
from penstock.core.identity import Digest
from penstock.testing.transport import LINK_CHECKS, Check, Pair, Recorder
from penstock.transports import frames
from penstock.transports.certificate import contexts
from penstock.transports.hello import Hello
from penstock.transports.tls import Limits, TlsLink, connect, serve

from .support import CHEATER, CONSUMER, HOST, SUPPLIER, Pole, RawPeer, pole, tcp_server

Scenario = Coroutine[Any, Any, None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario on either event loop."""
    if request.param == "uvloop":
        return lambda scenario: uvloop.run(scenario)
    return lambda scenario: asyncio.run(scenario)


@pytest.mark.parametrize("check", LINK_CHECKS, ids=lambda check: check.__name__)
def test_a_tls_link_conforms(check: Check, run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        accepted: asyncio.Queue[TlsLink] = asyncio.Queue()
        server = await serve(HOST, 0, SUPPLIER, accepted.put_nowait)

        async def pair() -> Pair:
            left = await connect(HOST, server.port, CONSUMER)
            return Pair(left, await accepted.get(), CONSUMER.address, SUPPLIER.address)

        await check(pair)
        await server.close()

    run(scenario())


def test_ten_thousand_frames_arrive_both_ways_in_order(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        rng = random.Random(7)
        sent = [struct.pack(">I", n) + rng.randbytes(rng.randrange(400)) for n in range(10_000)]
        async with pole() as it:
            link = await connect(HOST, it.port, CONSUMER)
            back = Recorder(link)
            for at in range(0, len(sent), 100):
                for frame in sent[at : at + 100]:
                    link.send(frame)
                await asyncio.sleep(0)
            assert await back.count(len(sent)) == sent  # the pole has echoed each of them
            link.close()

    run(scenario())


# Who is there


def test_another_machine_than_expected_is_refused() -> None:
    async def scenario() -> None:
        async with pole() as it:
            with pytest.raises(BadSignature, match="as expected"):
                await connect(HOST, it.port, CONSUMER, expect=CHEATER.address)

    asyncio.run(scenario())


def test_a_machine_in_the_middle_is_detected_by_both() -> None:
    """It terminates TLS on both sides with a certificate of the link authority, and passes every byte on."""

    async def scenario() -> None:
        seen: list[bytes] = []
        middle = contexts.__wrapped__()  # a certificate of its own, as it would have in a process of its own
        async with pole() as it:

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                peer = await RawPeer.dial(it.port, middle.client)

                async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                    while data := await source.read(65536):
                        seen.append(data)
                        sink.write(data)

                await asyncio.gather(pump(reader, peer.writer), pump(peer.reader, writer))

            async with tcp_server(relay, middle.server) as port:
                with pytest.raises((BadSignature, PeerRefused), match="cannot prove"):
                    await connect(HOST, port, CONSUMER, expect=SUPPLIER.address)
            assert seen
            assert it.links.empty()

    asyncio.run(scenario())


def test_a_proof_of_another_connection_does_not_serve_again() -> None:
    async def scenario() -> None:
        async with pole() as it:
            peer = await RawPeer.dial(it.port)
            own = Hello((1,), b"n" * 32, CONSUMER.address).encode()
            peer.writer.write(frames.control(frames.HELLO, own))
            peer.writer.write(frames.control(frames.PROOF, CONSUMER.sign(Digest(b"d" * 32))))
            assert "cannot prove" in await peer.reason()
            peer.abort()
            assert it.links.empty()

    asyncio.run(scenario())


def test_a_peer_that_sends_our_own_proof_back_is_refused() -> None:
    async def scenario() -> None:
        async with pole() as it:
            peer = await RawPeer.dial(it.port)
            _, theirs = await peer.frame()
            peer.writer.write(frames.control(frames.HELLO, theirs))
            _, proof = await peer.frame()
            peer.writer.write(frames.control(frames.PROOF, proof))
            assert "cannot prove" in await peer.reason()
            peer.abort()
            assert it.links.empty()

    asyncio.run(scenario())


def test_no_common_version_is_told_to_both() -> None:
    async def scenario() -> None:
        async with pole() as it:
            peer = await RawPeer.dial(it.port)
            peer.writer.write(frames.control(frames.HELLO, Hello((7, 9), b"n" * 32, CHEATER.address).encode()))
            assert "no common protocol version: we speak 1, the peer 7, 9" in await peer.reason()
            peer.abort()

    asyncio.run(scenario())


def test_a_client_without_certificate_is_refused() -> None:
    async def scenario() -> None:
        import ssl

        naked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        naked.check_hostname, naked.verify_mode = False, ssl.CERT_NONE
        async with pole() as it:
            reader, writer = await asyncio.open_connection(HOST, it.port, ssl=naked)
            with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
                await reader.read()
            writer.transport.abort()

    asyncio.run(scenario())


# Addresses that lead nowhere


def test_a_port_in_use_is_a_usage_error_that_says_what_to_do() -> None:
    async def scenario() -> None:
        async with pole() as it:
            with pytest.raises(UsageError, match="address already in use") as caught:
                await serve(HOST, it.port, SUPPLIER, lambda link: None)
            assert "0 for a free one" in caught.value.advice

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid", "x" * 300])
def test_an_address_that_is_not_ours_cannot_be_served(host: str) -> None:
    with pytest.raises(UsageError):
        asyncio.run(_serve_on(host))


async def _serve_on(host: str) -> None:
    await serve(host, 0, SUPPLIER, lambda link: None)


def test_nobody_there_is_a_lost_link(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        with socket.socket() as bound:  # bound, so that nobody else takes it; not listening
            bound.bind((HOST, 0))
            with pytest.raises(LinkLost, match="connection refused") as caught:
                await connect(HOST, bound.getsockname()[1], CONSUMER)
            assert caught.value.advice

    run(scenario())


def test_a_host_name_that_cannot_be_is_a_typed_error(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        with pytest.raises((UsageError, LinkLost)):
            await connect("x" * 300, 1, CONSUMER)
        with pytest.raises(UsageError, match="70000 is no port"):
            await connect(HOST, 70_000, CONSUMER)

    run(scenario())


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def scenario() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with tcp_server(mute) as port:
            with pytest.raises(LinkLost, match=r"within 0\.2 s"):
                await connect(HOST, port, CONSUMER, timeout=0.2)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x16\x03\x03\xf0\xf0" + bytes(500),
        b"\x16\x03\x03\x10\x10" + bytes(500),
        b"",
    ],
)
def test_a_server_that_speaks_something_else_is_a_typed_error(answer: bytes, run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer)
            writer.close()

        async with tcp_server(other) as port:
            with pytest.raises((BadFrame, LinkLost)) as caught:
                await connect(HOST, port, CONSUMER, timeout=5)
            assert "\n" not in caught.value.line()

    run(scenario())


# Bad peers, each beside honest ones: `pole` asserts at its end that others are still served


def test_rubbish_before_tls_is_dropped(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole() as it:
            reader, writer = await asyncio.open_connection(HOST, it.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            while await asyncio.wait_for(reader.read(1000), 10):
                pass  # a TLS alert, then the end
            writer.transport.abort()

    run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        os.urandom(300),
        frames.header(5) + b"early",  # application data before the proof
        frames.control(frames.PROOF, bytes(65)),
        frames.control(frames.HELLO, b"penstock" + bytes(53)),
        frames.control(frames.HELLO, b"pennstock" + bytes(60)),
    ],
    ids=["random", "early", "proof first", "no versions", "other magic"],
)
def test_rubbish_instead_of_a_hello_is_dropped_with_a_reason(rubbish: bytes, run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole() as it:
            peer = await RawPeer.dial(it.port)
            peer.writer.write(rubbish)
            assert await peer.reason()
            peer.abort()
            assert it.links.empty()

    run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        struct.pack(">I", frames.MAX_FRAME + 1),  # refused by its header alone
        struct.pack(">I", 0),
        b"\xff" * 64,
        frames.control(frames.PING, b"with payload"),
        frames.control(frames.HELLO, b"again"),
    ],
    ids=["oversize", "empty", "unknown kind", "long ping", "second hello"],
)
def test_rubbish_on_an_open_link_is_a_bad_frame(rubbish: bytes, run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole() as it:
            peer = await RawPeer.dial(it.port)
            await peer.prove()
            peer.writer.write(frames.header(5) + b"first")
            assert await peer.frame() == (frames.DATA, b"first")
            peer.writer.write(frames.header(4) + b"good" + rubbish)
            assert await peer.frame() == (frames.DATA, b"good")  # what came before the rubbish was delivered
            assert isinstance(await it.end(), BadFrame)
            assert "frame of kind" in await peer.reason()
            peer.abort()

    run(scenario())


def test_bytes_that_are_no_tls_record_end_an_open_link(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole() as it:
            # A relay on the TCP level that slips its own bytes in between the TLS records
            slip = asyncio.Event()

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                there_reader, there = await asyncio.open_connection(HOST, it.port)

                async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                    while data := await source.read(65536):
                        sink.write(data)
                    sink.close()

                async def slipping() -> None:
                    await slip.wait()
                    there.write(os.urandom(100))

                await asyncio.gather(pump(reader, there), pump(there_reader, writer), slipping())

            async with tcp_server(relay) as port:
                link = await connect(HOST, port, CONSUMER)
                here = Recorder(link)
                await asyncio.wait_for(it.links.get(), 10)  # open on both sides
                slip.set()
                assert isinstance(await it.end(), BadFrame)
                assert isinstance(await here.end(), PenstockError)

    run(scenario())


def test_a_truncated_frame_is_not_delivered(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole() as it:
            peer = await RawPeer.dial(it.port)
            await peer.prove()
            server_end = Recorder(await asyncio.wait_for(it.links.get(), 10))
            peer.writer.write(frames.header(100) + bytes(99))
            peer.writer.close()
            assert isinstance(await server_end.end(), LinkLost)
            assert server_end.frames == []

    run(scenario())


def test_a_frame_that_drips_in_byte_by_byte_arrives_whole() -> None:
    decoder = frames.Decoder()
    wire = frames.header(5) + b"hello" + frames.control(frames.PING) + frames.header(1) + b"!"
    got = [frame for at in range(len(wire)) for frame in decoder.frames(wire[at : at + 1])]
    assert got == [(frames.DATA, b"hello"), (frames.PING, b""), (frames.DATA, b"!")]


def test_a_flood_is_cut_off(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole(Limits(max_rate=200_000)) as it:
            peer = await RawPeer.dial(it.port)
            await peer.prove()
            peer.writer.write((frames.control(frames.PONG)) * 10_000)
            error = await it.end()
            assert isinstance(error, BadFrame)
            assert "200000 bytes a second" in str(error)
            assert "200000 bytes a second" in await peer.reason()
            peer.abort()

    run(scenario())


def test_an_honest_rate_over_time_is_no_flood() -> None:
    async def scenario() -> None:
        # 300 echoes cost 300 * 612 bytes: nearly twice the bucket, but it fills again meanwhile.
        async with pole(Limits(max_rate=100_000)) as it:
            link = await connect(HOST, it.port, CONSUMER)
            back = Recorder(link)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for number in range(300):
                link.send(bytes(100))
                await back.count(number + 1)
                await asyncio.sleep(
                    max(0.0, begun + number * 0.005 - loop.time())
                )  # 122,400 bytes a second, 1.5 s long
            assert not back.ends
            link.close()

    asyncio.run(scenario())


def test_frames_that_nobody_attached_for_are_bounded() -> None:
    async def scenario() -> None:
        kept: list[TlsLink] = []
        server = await serve(HOST, 0, SUPPLIER, kept.append, limits=Limits(max_backlog=50_000))
        link = await connect(HOST, server.port, CONSUMER)
        here = Recorder(link)
        for _ in range(1000):
            link.send(bytes(100))
        error = await here.end()
        assert isinstance(error, PeerRefused)
        assert "before they were wanted" in str(error)
        late = Recorder(kept[0])
        assert isinstance(await late.end(), BadFrame)
        await server.close()

    asyncio.run(scenario())


def test_silence_ends_a_link_and_pings_keep_one(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with pole(Limits(idle_timeout=0.3)) as it:
            quiet = Recorder(await connect(HOST, it.port, CONSUMER))  # answers pings by itself
            begun = loop.time()
            peer = await RawPeer.dial(it.port)
            await peer.prove()
            error = await it.end()
            assert isinstance(error, LinkLost)
            assert "silent" in str(error)
            assert 0.3 <= loop.time() - begun < 2
            assert "silent" in await peer.reason()
            peer.abort()
            assert not quiet.ends

    run(scenario())


@pytest.mark.parametrize("stage", ["tcp", "tls", "hello"])
def test_a_handshake_that_stalls_is_dropped_at_the_deadline(stage: str, run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with pole(Limits(handshake_timeout=0.3)) as it:
            begun = loop.time()
            if stage == "tcp":
                peer = RawPeer(*await asyncio.open_connection(HOST, it.port))
                peer.writer.write(b"\x16\x03\x01")
            else:
                peer = await RawPeer.dial(it.port)
                if stage == "hello":
                    peer.writer.write(frames.control(frames.HELLO, Hello((1,), bytes(32), CHEATER.address).encode()))
            assert await peer.ended()
            assert 0.25 <= loop.time() - begun < 5
            peer.abort()
            assert it.links.empty()

    run(scenario())


def test_those_who_stall_in_the_handshake_do_not_shut_others_out() -> None:
    async def scenario() -> None:
        async with pole(Limits(max_pending=5)) as it:
            stalled = [await asyncio.open_connection(HOST, it.port) for _ in range(20)]
            link = await connect(HOST, it.port, CONSUMER)
            link.close()
            for _, writer in stalled:
                writer.transport.abort()

    asyncio.run(scenario())


def test_a_peer_that_never_reads_is_dropped(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole(Limits(max_unsent=200_000)) as it:
            peer = await RawPeer.dial(it.port)
            await peer.prove()
            peer.writer.transport.pause_reading()
            link = await asyncio.wait_for(it.links.get(), 10)
            for _ in range(2000):  # loopback buffers hold some megabytes
                link.send(bytes(frames.MAX_FRAME))
                await asyncio.sleep(0)
                if not it.ends.empty():
                    break
            error = await it.end()
            assert isinstance(error, LinkLost)
            assert "does not read" in str(error)
            peer.abort()

    run(scenario())


def test_a_server_takes_no_more_links_than_it_may() -> None:
    async def scenario() -> None:
        accepted: asyncio.Queue[TlsLink] = asyncio.Queue()
        server = await serve(HOST, 0, SUPPLIER, accepted.put_nowait, limits=Limits(max_links=2))
        links = [await connect(HOST, server.port, CONSUMER) for _ in range(3)]
        error = await Recorder(links[2]).end()
        assert isinstance(error, PeerRefused)
        assert "no room" in str(error)
        first = Recorder(await accepted.get())
        links[0].send(b"unharmed")
        assert await first.count(1) == [b"unharmed"]
        await server.close()

    asyncio.run(scenario())


def test_a_link_that_the_server_refuses_learns_why() -> None:
    async def scenario() -> None:
        def refuse(link: TlsLink) -> None:
            raise PeerRefused("this pole is reserved")

        server = await serve(HOST, 0, SUPPLIER, refuse)
        error = await Recorder(await connect(HOST, server.port, CONSUMER)).end()
        assert isinstance(error, PeerRefused)
        assert str(error) == "this pole is reserved"
        await server.close()

    asyncio.run(scenario())


def test_a_closing_server_ends_its_links_as_resumable(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        it = Pole()
        it.server = await serve(HOST, 0, SUPPLIER, it.on_link)
        here = Recorder(await connect(HOST, it.port, CONSUMER))
        stalled = RawPeer(*await asyncio.open_connection(HOST, it.port))
        await asyncio.wait_for(it.server.close(), 5)
        assert isinstance(await here.end(), LinkLost)
        assert await stalled.ended()
        stalled.abort()
        with pytest.raises(LinkLost):
            await connect(HOST, it.port, CONSUMER)
        assert it.ends.empty()

    run(scenario())


def test_a_reason_cannot_drive_the_terminal_that_shows_it() -> None:
    async def scenario() -> None:
        async with pole() as it:
            link = await connect(HOST, it.port, CONSUMER)
            server_end = Recorder(await it.links.get())
            link.close("\x1b[2Jall is well\nreally\u202e" + "x" * 1000)
            error = await server_end.end()
            assert str(error).startswith("?[2Jall is well?really?xxx")
            assert len(str(error).encode()) <= frames.MAX_REASON

    asyncio.run(scenario())


def test_one_bad_link_among_a_hundred_hurts_no_other(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with pole() as it:

            async def honest(number: int) -> None:
                link = await connect(HOST, it.port, CONSUMER, timeout=30)
                back = Recorder(link)
                for step in range(20):
                    link.send(struct.pack(">II", number, step))
                    await back.count(step + 1)
                assert back.frames == [struct.pack(">II", number, step) for step in range(20)]
                link.close()

            async def bad() -> None:
                peer = await RawPeer.dial(it.port)
                await peer.prove()
                peer.writer.write(b"\xff" * 1_000_000)
                assert "frame of kind" in await peer.reason()
                peer.abort()

            async with asyncio.timeout(40):
                await asyncio.gather(bad(), *(honest(number) for number in range(99)))

    run(scenario())
