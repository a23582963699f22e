"""The bytes of one WebSocket, read and written as any other library does."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from shared.runtime.websocket import turns
from shared.runtime.websocket.control import Control
from shared.runtime.websocket.protocol import SocketProtocol

PING = (7).to_bytes(8, "big")
OTHER = b"12345678"


class Wire(asyncio.Transport):
    """Keeps what is written until the peer closes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False
        self.is_paused = False
        self.buffered_bytes = 0

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False


class Peer:
    """An accepted socket, and the other side of its connection on the library's own protocol."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.protocol = SocketProtocol(
            Config(_no_app, log_config=None),
            ServerState(),
            self.wire,
            [(b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")],
        )
        self.client = Protocol(CLIENT)
        self.received: list[Message] = []
        self.pongs: list[bytes] = []
        self.control: Control
        # What the application still does when its client has closed.
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._accepted = asyncio.Event()

    async def open(self) -> "Peer":
        self.protocol.serve(self._app, {"type": "websocket"})
        await self._accepted.wait()
        _, _, self.wire.written = self.wire.written.partition(b"\r\n\r\n")
        return self

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.control = scope["extensions"]["websocket.control"]
        self.control["hear_pongs"](self.pongs.append)
        await receive()
        await send({"type": "websocket.accept"})
        self._accepted.set()
        while (message := await receive())["type"] != "websocket.disconnect":
            self.received.append(message)
        await self.may_end.wait()

    def write(self, *texts: bytes, ping: bytes | None = None) -> None:
        self.control["write"](texts, ping)

    @property
    def frames(self) -> list[tuple[Opcode, bytes]]:
        """What the other side has been sent."""
        self.client.receive_data(self.wire.written)
        self.wire.written = b""
        events = self.client.events_received()
        return [(event.opcode, bytes(event.data)) for event in events if isinstance(event, Frame)]

    async def has_turns(self) -> None:
        """Waits until the protocol reads again."""
        for _ in range(1000):
            if not self.wire.is_paused:
                return
            await asyncio.sleep(0)
        raise AssertionError("reading stays paused")

    async def close(self) -> None:
        self.protocol.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def _no_app(*_: Any) -> None:
    pass


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = await Peer().open()
    yield peer
    await peer.close()


def masked(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_texts_and_pings_are_what_the_library_reads(peer: Peer, length: int) -> None:
    peer.write(b"x" * length, b"second", ping=PING)

    assert peer.frames == [(Opcode.TEXT, b"x" * length), (Opcode.TEXT, b"second"), (Opcode.PING, PING)]


async def test_frames_and_ping_are_one_write(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(peer.wire, "write", writes.append)

    peer.write(b"1", b"2", ping=PING)

    assert len(writes) == 1


async def test_a_pong_confirms_the_ping_once(peer: Peer) -> None:
    peer.write(ping=PING)

    for payload in (OTHER, PING, PING):
        peer.protocol.data_received(masked(Opcode.PONG, payload))

    assert peer.pongs == [PING]


async def test_a_pong_in_parts_confirms_its_ping(peer: Peer) -> None:
    for at in range(1, 14):
        peer.write(ping=PING)
        pong = masked(Opcode.PONG, PING)
        peer.protocol.data_received(pong[:at])
        peer.protocol.data_received(pong[at:])

    assert peer.pongs == [PING] * 13


async def test_a_text_that_looks_like_a_pong_is_a_text(peer: Peer) -> None:
    """Its bytes arrive in a read of their own, as a pong's would."""
    disguised = masked(Opcode.PONG, PING)
    mask, text = b"\0\0\0\0", disguised
    peer.write(ping=PING)

    peer.protocol.data_received(bytes((0x82, 0x80 | len(text))) + mask)
    peer.protocol.data_received(text)
    await asyncio.sleep(0)

    assert peer.pongs == []
    assert [message["bytes"] for message in peer.received] == [disguised]


PARTS = st.lists(
    st.one_of(
        st.just(masked(Opcode.PONG, PING)),
        st.just(masked(Opcode.PONG, OTHER)),
        st.just(masked(Opcode.PONG, b"")),
        st.binary(max_size=130).map(lambda payload: masked(Opcode.BINARY, payload)),
        st.binary(max_size=12).map(lambda payload: masked(Opcode.PING, payload)),
    ),
    max_size=8,
)


@given(parts=PARTS, cuts=st.lists(st.integers(0, 500)))
async def test_reads_may_be_cut_anywhere(parts: list[bytes], cuts: list[int]) -> None:
    """The library alone receives the same."""
    peer = await Peer().open()
    expected = Protocol(SERVER)
    data = b"".join(parts)
    expected.receive_data(data)
    wanted = [event for event in expected.events_received() if isinstance(event, Frame)]
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(at):
        peer.write(ping=PING)
        peer.protocol.data_received(data[start:end])
        await peer.has_turns()

    assert [m["bytes"] for m in peer.received] == [e.data for e in wanted if e.opcode is Opcode.BINARY]
    assert len(peer.pongs) <= sum(e.data == PING for e in wanted if e.opcode is Opcode.PONG)
    await peer.close()


async def test_after_our_close_frame_pongs_are_heard_and_nothing_is_written(peer: Peer) -> None:
    peer.write(ping=PING)
    await peer.protocol.send({"type": "websocket.close", "code": 1001})
    peer.protocol.data_received(masked(Opcode.PONG, PING))

    assert peer.pongs == [PING]
    with pytest.raises(ClientDisconnected):
        peer.write(b"late")
    assert [opcode for opcode, _ in peer.frames] == [Opcode.PING, Opcode.CLOSE]


async def test_after_the_clients_close_frame_no_pong_is_heard(peer: Peer) -> None:
    peer.write(ping=PING)
    peer.protocol.data_received(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
    peer.protocol.data_received(masked(Opcode.PONG, PING))

    assert peer.pongs == []
    with pytest.raises(ClientDisconnected):
        peer.write(b"late")


@pytest.fixture
async def handshake() -> AsyncIterator[Peer]:
    """A socket whose application has not responded yet."""
    peer = Peer()
    yield peer
    await peer.close()


async def _shut_down(peer: Peer) -> None:
    peer.protocol.shutdown()


async def _close(peer: Peer, code: int) -> None:
    await peer.protocol.send({"type": "websocket.close", "code": code})


async def _abort(peer: Peer) -> None:
    await peer.protocol.send({"type": "websocket.abort"})


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (_shut_down, b"503"),
        (partial(_close, code=1001), b"503"),
        (partial(_close, code=1011), b"503"),
        (partial(_close, code=1012), b"503"),
        (_abort, b"503"),
        (partial(_close, code=1008), b"403"),
    ],
    ids=["shutdown", "1001", "1011", "1012", "abort", "1008"],
)
async def test_a_handshake_that_ends_early_gets_a_response(
    handshake: Peer, end: Callable[[Peer], Awaitable[None]], status: bytes
) -> None:
    """Never a cut connection, nor a 500; and the application learns of it when it accepts."""
    await end(handshake)

    head, _, body = handshake.wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    if status == b"503":
        assert b"\r\nretry-after: 1\r\n" in head
        assert b'"type":"service_unavailable"' in body
    assert handshake.wire.is_closed
    with pytest.raises(ClientDisconnected):
        await handshake.protocol.send({"type": "websocket.accept"})


EMPTY = {
    "pings": masked(Opcode.PING, b""),
    "pongs": masked(Opcode.PONG, b""),
    "texts": masked(Opcode.TEXT, b""),
    "messages of two fragments": Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    + masked(Opcode.CONT, b""),
}


@pytest.mark.parametrize("flood", EMPTY.values(), ids=EMPTY)
async def test_a_turn_parses_a_share_of_a_flood(
    peer: Peer, flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading pauses until the rest had its turns; nothing is lost."""
    frames: list[Frame] = []
    monkeypatch.setattr(SocketProtocol, "_receive_frame", lambda _, frame: frames.append(frame))
    total = 400 * len(flood) // 6

    peer.protocol.data_received(flood * 400)
    most = len(frames)
    for _ in range(50):
        before = len(frames)
        await asyncio.sleep(0)
        most = max(most, len(frames) - before)

    assert most < 100
    assert not peer.wire.is_paused
    assert len(frames) == total


async def test_a_client_beyond_its_rate_is_not_read(peer: Peer) -> None:
    peer.protocol.data_received(EMPTY["pings"] * 2000)

    for _ in range(200):
        await asyncio.sleep(0)

    assert peer.wire.is_paused
    assert 1000 <= len(peer.frames) < 1100
    assert not peer.wire.is_closed


async def test_pongs_to_our_pings_do_not_count_for_the_rate(peer: Peer) -> None:
    """A client acks as fast as it is sent notifications; a late pong answers an earlier ping."""
    for _ in range(1000):
        for _ in range(3):
            peer.write(ping=PING)
        peer.protocol.data_received(masked(Opcode.PONG, PING))
        peer.protocol.data_received(masked(Opcode.PONG, OTHER) * 2)

    assert not peer.wire.is_paused
    assert len(peer.pongs) == 1000


async def test_a_client_that_pings_and_does_not_read_is_cut(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_FRAMES_PER_S", 1e9)
    peer.wire.buffered_bytes = 1
    ping = masked(Opcode.PING, b"x" * 125)

    for _ in range(100):
        peer.protocol.data_received(ping * 6)
        await asyncio.sleep(0)

    assert peer.wire.is_closed
    assert len(peer.wire.written) < 66 * 1024


async def test_a_message_of_the_longest_size_takes_several_turns(peer: Peer) -> None:
    peer.protocol.data_received(masked(Opcode.BINARY, b"x" * 65_535))
    assert peer.wire.is_paused

    await peer.has_turns()

    assert [len(message["bytes"]) for message in peer.received] == [65_535]


async def test_a_flood_before_a_close_frame_does_not_hide_it(peer: Peer) -> None:
    peer.protocol.data_received(EMPTY["texts"] * 500 + masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))

    for _ in range(100):
        await asyncio.sleep(0)

    assert len(peer.received) == 500
    assert peer.wire.is_closed
