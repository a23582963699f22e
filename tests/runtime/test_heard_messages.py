"""An application that hears messages at once gets what the library reads, however it arrives."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from tests.harness.waiting import wait_until
from tests.runtime.test_websocket_protocol import OTHER, PING, Peer, masked

LIMIT = 70_000


class Listener(Peer):
    """Hears messages; holds the client behind each `holds_behind`."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[bytes, bool]] = []
        self.counts = True
        self.holds_behind: bytes | None = None

    async def open(self) -> "Listener":
        await super().open()
        self.hear()
        return self

    def hear(self) -> None:
        self.control["hear_messages"](self._hear, LIMIT)

    def _hear(self, message: bytes, is_text: bool) -> bool:
        self.heard.append((message, is_text))
        if message == self.holds_behind:
            self.control["hold_messages"](True)
        return self.counts

    def get(self, data: bytes) -> None:
        self.protocol.data_received(data)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = await Listener().open()
    yield listener
    await listener.close()


def fragments(*parts: bytes) -> bytes:
    last = len(parts) - 1
    return b"".join(
        Frame(Opcode.CONT if number else Opcode.TEXT, part, fin=number == last).serialize(mask=True)
        for number, part in enumerate(parts)
    )


TEXTS = st.text(max_size=200).map(str.encode)
PARTS = st.lists(
    st.one_of(
        TEXTS.map(lambda text: masked(Opcode.TEXT, text)),
        st.lists(TEXTS, min_size=1, max_size=3).map(lambda texts: fragments(*texts)),
        st.binary(max_size=130).map(lambda data: masked(Opcode.BINARY, data)),
        st.sampled_from([PING, OTHER, b""]).map(lambda data: masked(Opcode.PONG, data)),
        st.binary(max_size=12).map(lambda data: masked(Opcode.PING, data)),
        st.just(masked(Opcode.TEXT, b"x" * 66_000)),
    ),
    max_size=8,
)


@given(parts=PARTS, cuts=st.lists(st.integers(0, 70_000), max_size=20))
async def test_reads_may_be_cut_anywhere(parts: list[bytes], cuts: list[int]) -> None:
    """The library alone receives the same."""
    listener = await Listener().open()
    expected = Protocol(SERVER)
    data = b"".join(parts)
    expected.receive_data(data)
    wanted = [event for event in expected.events_received() if isinstance(event, Frame)]
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(at):
        listener.write(ping=PING)
        listener.get(data[start:end])
        await listener.has_turns()

    messages: list[tuple[bytes, bool]] = []
    for frame in wanted:
        if frame.opcode is Opcode.CONT:
            messages[-1] = messages[-1][0] + bytes(frame.data), messages[-1][1]
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            messages.append((bytes(frame.data), frame.opcode is Opcode.TEXT))
    assert listener.heard == messages
    assert listener.received == []
    pings = [bytes(frame.data) for frame in wanted if frame.opcode is Opcode.PING]
    assert [data for opcode, data in listener.frames if opcode is Opcode.PONG] == pings
    await listener.close()


async def test_all_of_one_read_is_heard_in_one_turn(listener: Listener) -> None:
    texts = [b'{"ref":%d}' % number for number in range(20)]

    listener.get(b"".join(masked(Opcode.TEXT, text) for text in texts))

    assert listener.heard == [(text, True) for text in texts]
    assert not listener.wire.is_paused


async def test_a_held_client_is_read_on_where_it_was_held(listener: Listener) -> None:
    listener.holds_behind = b"2"

    listener.get(b"".join(masked(Opcode.TEXT, b"%d" % number) for number in range(5)))
    listener.get(masked(Opcode.TEXT, b"5"))
    await asyncio.sleep(0)

    assert [message for message, _ in listener.heard] == [b"0", b"1", b"2"]
    assert listener.wire.is_paused
    listener.control["hold_messages"](False)
    await listener.has_turns()
    assert [message for message, _ in listener.heard] == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_what_arrives_in_many_small_reads_is_put_together(listener: Listener) -> None:
    text = b"x" * 5000
    data = masked(Opcode.TEXT, text)

    for at in range(len(data)):
        listener.get(data[at : at + 1])

    assert listener.heard == [(text, True)]


@pytest.mark.parametrize("counts", [True, False], ids=["counted", "not counted"])
async def test_what_does_not_count_is_read_beyond_the_rate(listener: Listener, counts: bool) -> None:
    listener.counts = counts
    listener.get(masked(Opcode.TEXT, b"{}") * 3000)
    for _ in range(1000):
        await asyncio.sleep(0)

    assert (len(listener.heard) == 3000) is not counts
    assert listener.wire.is_paused is counts


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (fragments(b"a", b"\xff"), 1007),
        (masked(Opcode.TEXT, b"x" * (LIMIT + 1)), 1009),
        (masked(Opcode.TEXT, b"x" * (LIMIT + 1))[:10], 1009),
        (fragments(b"x" * LIMIT, b"x"), 1009),
        (b"\x81\x7f" + b"\xff" * 8, 1002),
        (Frame(Opcode.TEXT, b"not masked").serialize(mask=False), 1002),
        (b"\x81\x05", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
    ],
    ids=[
        *("not UTF-8", "not UTF-8 in fragments", "too long", "too long by its head", "too long in fragments"),
        *("a huge length, not masked", "not masked", "not masked by its head", "unknown", "reserved bit"),
    ],
)
async def test_what_breaks_the_protocol_closes_with_the_librarys_code(
    listener: Listener, data: bytes, code: int
) -> None:
    listener.get(masked(Opcode.TEXT, b"before"))
    listener.get(data)
    await wait_until(lambda: listener.wire.is_closed)

    assert listener.heard == [(b"before", True)]
    [(opcode, payload)] = listener.frames
    assert (opcode, int.from_bytes(payload[:2])) == (Opcode.CLOSE, code)


@pytest.mark.parametrize("cut", range(1, 40))
async def test_a_client_that_does_not_wait_for_the_handshake_is_heard_too(cut: int) -> None:
    """What came before the application hears is received; no message is lost between the two, or torn."""
    listener = Listener()
    await Peer.open(listener)
    texts = [b"message %d" % number for number in range(3)]
    data = b"".join(masked(Opcode.TEXT, text) for text in texts)

    listener.get(data[:cut])
    listener.hear()
    listener.get(data[cut:])
    await wait_until(lambda: len(listener.received) + len(listener.heard) == len(texts))

    received = [message["text"].encode() for message in listener.received]
    assert [*received, *(message for message, _ in listener.heard)] == texts
    await listener.close()


async def test_behind_our_close_frame_nothing_is_heard(listener: Listener) -> None:
    await listener.protocol.send({"type": "websocket.close", "code": 4001})

    listener.get(masked(Opcode.TEXT, b"late") + masked(Opcode.CLOSE, (4001).to_bytes(2)))

    assert listener.heard == []
    assert listener.wire.is_closed


async def test_a_larger_message_may_be_allowed_later(listener: Listener) -> None:
    listener.get(masked(Opcode.PING, b""))
    listener.control["hear_messages"](listener._hear, 2 * LIMIT)

    listener.get(masked(Opcode.TEXT, b"x" * 2 * LIMIT))
    listener.get(fragments(b"y" * LIMIT, b"y" * LIMIT))
    await listener.has_turns()

    assert [len(message) for message, _ in listener.heard] == [2 * LIMIT, 2 * LIMIT]
