"""When a client's close frame is answered, and which pongs count before it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.frames import Opcode

from shared.runtime.websocket import protocol
from tests.harness.waiting import wait_until
from tests.runtime.test_websocket_protocol import PING, Peer, masked

CLOSE = masked(Opcode.CLOSE, (1000).to_bytes(2, "big"))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = await Peer().open()
    yield peer
    await peer.close()


async def test_the_clients_close_frame_is_answered_when_the_application_has_ended(peer: Peer) -> None:
    peer.may_end.clear()

    peer.protocol.data_received(masked(Opcode.PING, b"?") + CLOSE)
    await asyncio.sleep(0)
    assert peer.frames == []
    assert not peer.wire.is_closed

    peer.may_end.set()
    await wait_until(lambda: peer.wire.is_closed)
    assert peer.frames == [(Opcode.PONG, b"?"), (Opcode.CLOSE, (1000).to_bytes(2, "big"))]


async def test_the_clients_close_frame_is_answered_when_the_application_takes_too_long(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_END_LIMIT_S", 0.01)
    peer.may_end.clear()

    peer.protocol.data_received(CLOSE)
    assert peer.protocol.eof_received(), "the answer can still be written"
    await wait_until(lambda: peer.wire.is_closed)

    assert peer.frames == [(Opcode.CLOSE, (1000).to_bytes(2, "big"))]
    peer.may_end.set()


async def test_one_pong_stands_for_all_pings_before_it(peer: Peer) -> None:
    pings = [number.to_bytes(8, "big") for number in range(4)]
    for ping in pings:
        peer.write(ping=ping)

    for number in (1, 0, 1, 3, 2, 3):
        peer.protocol.data_received(masked(Opcode.PONG, pings[number]))

    assert peer.pongs == [pings[1], pings[3]]


@pytest.mark.parametrize(
    "malformed",
    [b"\x83\x80\0\0\0\0", masked(Opcode.CLOSE, b"x")],
    ids=["a reserved opcode", "a close frame of one byte"],
)
async def test_a_pong_before_a_malformed_frame_is_heard(peer: Peer, malformed: bytes) -> None:
    peer.write(ping=PING)

    peer.protocol.data_received(masked(Opcode.PONG, PING) + malformed)

    assert peer.pongs == [PING]
    assert peer.wire.is_closed
