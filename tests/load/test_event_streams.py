"""The harness's reader of streams: what it parses, and which losses it takes for told."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.connections import Refused
from tests.load.event_streams import EventStream, Parsed, StreamParser
from tests.load.messages import Target, template
from tests.load.readers import Reader, Reading
from tests.load.recorder import Recorder
from tests.load.sequences import count_all

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STARTED = b'event: recovered\ndata: {"topic":"load.0","recovered":true,"epoch":"e","offset":"1-0"}\nid: s\n\n'
TRIMMED = b'event: recovered\ndata: {"topic":"load.0","recovered":false,"reason":"trimmed"}\nid: t\n\n'
END = b'event: end\ndata: {"reason":"shutdown","reconnect":true}\n\n'


def event(lane: int, number: int, *, sent_us: int = 5) -> bytes:
    found = template(Target(0), size=200).event(lane, number, sent_us)
    data = found.partition(b'"data":')[2][:-1]
    return b'data: {"specversion":"1.0","data":%b}\nid: %d-%d\n\n' % (data, lane, number)


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


class Collected:
    """Everything that a stream has told its reader."""

    def __init__(self) -> None:
        self.parsed: list[Parsed] = []
        self.is_closed = False

    def on_parsed(self, parsed: Parsed) -> None:
        self.parsed.append(parsed)

    def on_closed(self) -> None:
        self.is_closed = True

    @property
    def items(self) -> list[tuple[int, int, int]]:
        return [item for each in self.parsed for item in each.items]

    @property
    def ids(self) -> list[bytes]:
        return [each.last_id for each in self.parsed if each.last_id]


def pieces(whole: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = sorted({0, *(cut % len(whole) for cut in cuts), len(whole)})
    return [whole[begin:end] for begin, end in itertools.pairwise(at)]


@given(
    cuts=st.lists(st.integers(0, 5000), max_size=20),
    chunked_at=st.lists(st.integers(0, 5000), max_size=6),
)
async def test_a_stream_is_read_in_any_pieces(cuts: list[int], chunked_at: list[int]) -> None:
    texts = [b"retry: 2000\n\n", STARTED, event(1, 0), b":\n\n", event(1, 1), event(2, 0), END]
    body = b"".join(chunk(piece) for piece in pieces(b"".join(texts), chunked_at))
    found, parser = Collected(), StreamParser()
    for _ in range(2):
        stream = EventStream(b"", found, parser)
        for piece in pieces(HEAD + body + b"0\r\n\r\n", cuts):
            stream.data_received(piece)
        await stream.opened
        assert found.items == [(1, 0, 5), (1, 1, 5), (2, 0, 5)]
        assert found.ids[-1] == b"2-0"
        assert [said.name for each in found.parsed for said in each.said] == ["recovered", "end"]
        assert found.parsed[-1].is_over
        assert sum(each.garbled for each in found.parsed) == 0
        found.parsed.clear()


async def test_an_event_that_is_none_of_ours_is_garbled() -> None:
    found = Collected()
    stream = EventStream(b"", found, StreamParser())
    stream.data_received(HEAD + chunk(b'data: {"data":{"path":"/elsewhere"}}\nid: x\n\n'))
    assert (found.parsed[0].garbled, found.items) == (1, [])


async def test_another_status_is_refused() -> None:
    stream = EventStream(b"", Collected(), StreamParser())
    stream.data_received(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 14\r\n\r\nnot your topic")
    with pytest.raises(Refused, match=r"403 Forbidden.*not your topic"):
        await stream.opened


def reader_of(recorder: Recorder) -> Reader:
    return Reader(Reading(7, "http://127.0.0.1:1", "load.0", ""), recorder, StreamParser())


async def read(reader: Reader, *texts: bytes) -> None:
    stream = EventStream(b"", reader, StreamParser())
    stream.data_received(HEAD + b"".join(chunk(text) for text in texts))
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("texts", "lost", "told", "duplicated"),
    [
        ([event(1, 0), event(1, 1), event(1, 2)], 0, 0, 0),
        ([event(1, 0), event(1, 2)], 1, 0, 0),
        ([event(1, 0), TRIMMED, event(1, 2)], 0, 1, 0),
        # It may not have missed anything, and what is missing later was not told.
        ([event(1, 0), TRIMMED, event(1, 1), event(1, 3)], 1, 0, 0),
        # What came before a hole was told is its own matter, also in one chunk.
        ([event(1, 0) + event(1, 2) + TRIMMED + event(1, 4)], 1, 1, 0),
        ([event(1, 0), TRIMMED + event(1, 0) + event(1, 1)], 0, 0, 1),
        # Nothing came behind the hole: all of it is lost.
        ([event(1, 0), TRIMMED], 2, 0, 0),
        # Each lane has a hole of its own.
        ([event(1, 0), event(2, 0), TRIMMED, event(1, 2), event(2, 2)], 0, 2, 0),
    ],
)
async def test_what_was_told_is_not_lost(texts: list[bytes], lost: int, told: int, duplicated: int) -> None:
    recorder = Recorder()
    await read(reader_of(recorder), STARTED, *texts)
    published: dict[tuple[int, int], int] = {}
    for (channel, lane), sequence in (received := recorder.recorded().sequences):
        published[channel, lane] = max(3 if lost == 2 else sequence.next, sequence.next)
    count = count_all(published, received)
    assert (count.lost, count.told, count.duplicated, count.unknown) == (lost, told, duplicated, 0), count
    assert count.received == count.published - lost - told
    assert recorder.told == told


async def test_a_reader_remembers_the_last_id_and_why_it_ended() -> None:
    reader = reader_of(Recorder())
    await read(reader, STARTED, event(1, 0), TRIMMED, event(1, 5) + END)
    assert reader.last_id == b"1-5"
    assert reader.holes == {"trimmed": 1}
    assert reader.closed == {"end shutdown": 1}


def test_the_same_bytes_are_parsed_once() -> None:
    parser = StreamParser()
    piece = chunk(event(1, 0))
    assert parser.parse(piece) is parser.parse(bytes(bytearray(piece)))
    assert parser.parse(piece, b"data: {").text == b""
    assert parser.parse(piece).items == [(1, 0, 5)]
    for number in range(1000):
        parser.parse(chunk(event(1, number)))
    assert parser.parse(piece).items == [(1, 0, 5)]
