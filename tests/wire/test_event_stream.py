"""The bytes of `text/event-stream`: what a client by WHATWG's rules makes of them."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.channels import CloseReason
from shared.model.events import Event
from shared.model.streams import NotRecovered, Retained
from shared.store.streams import retained_at
from shared.wire import sse
from shared.wire.stream_ids import id_of
from tests.harness.event_stream import EventStreamParser, Message

ACCOUNT = "acme"
OFFSET = "1795907463007-3"


def retained(data: bytes = b"1", **more: object) -> Retained:
    return Retained(OFFSET, Event("e1", "orders.paid", data, **more))  # type: ignore[arg-type]


def parsed(text: bytes) -> EventStreamParser:
    parser = EventStreamParser()
    parser.feed(text)
    return parser


def test_an_event_is_a_cloudevent() -> None:
    found = retained(b'{"n":1.50}', name="n", attributes=b'{"source":"/shop","region":"eu"}')
    [message] = parsed(sse.events("orders.paid", "ep", [found], account_id=ACCOUNT)).messages
    assert message.type == "message"
    assert message.last_event_id == id_of("orders.paid", "ep", OFFSET).decode()
    assert message.json == {
        "specversion": "1.0",
        "id": "e1",
        "source": "/shop",
        "type": "orders.paid",
        "time": "2026-11-28T23:11:03.007Z",
        "subject": "n",
        "region": "eu",
        "notifyoffset": OFFSET,
        "datacontenttype": "application/json",
        "data": {"n": 1.5},
    }
    assert '"data":{"n":1.50}' in message.data


@pytest.mark.parametrize("pieces", [1, 2, 7, 1000])
@pytest.mark.parametrize("line_break", [b"\n", b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\n\nid: x\n"])
def test_line_breaks_of_a_publisher_begin_no_line_of_ours(line_break: bytes, pieces: int) -> None:
    data = b'{"a":' + line_break.replace(b"id: x", b" ") + b"1}"
    text = sse.events("t", "", [retained(data), retained(b"2")], account_id=ACCOUNT)
    parser = EventStreamParser()
    for at in range(0, len(text), pieces):
        parser.feed(text[at : at + pieces])
    assert [message.json["data"] for message in parser.messages] == [{"a": 1}, 2]


NEW_ID = b"5f9c9f39-50a1-44f6-a875-815ad643af4b"
PARTS: dict[str, tuple[tuple[bytes, ...], bool]] = {
    "as nearly all": ((b"1795907463007-524288", NEW_ID, b'{"a":[1,"\xc3\xa9"]}', b"", b"", b""), True),
    "a short id": ((b"0-0", b"7", b"null", b"", b"", b""), True),
    "the last offset": ((b"99999999999999-999999999999999", b"A-z", b'""', b"", b"", b""), True),
    "a name": ((b"1-0", b"e", b"1", b"n", b"", b""), False),
    "a time": ((b"1-0", b"e", b"1", b"", b"2026-01-01T00:00:00Z", b""), False),
    "more": ((b"1-0", b"e", b"1", b"", b"", b'{"attributes":{"source":"/s"}}'), False),
    "a line feed": ((b"1-0", b"e", b"[\n1]", b"", b"", b""), False),
    "a carriage return": ((b"1-0", b"e", b"[\r1]", b"", b"", b""), False),
    "a quote in the id": ((b"1-0", b'e"', b"1", b"", b"", b""), False),
    "a backslash": ((b"1-0", b"e\\", b"1", b"", b"", b""), False),
    "a control character": ((b"1-0", b"e\x1f", b"1", b"", b"", b""), False),
    "another alphabet": ((b"1-0", "\u00e9".encode(), b"1", b"", b"", b""), False),
    "digits of another script": ((b"1-0", "\u0661".encode(), b"1", b"", b"", b""), False),
}


@pytest.mark.parametrize(("parts", "is_plain"), PARTS.values(), ids=PARTS)
def test_plain_events_are_the_same_bytes(parts: tuple[bytes, ...], is_plain: bool) -> None:
    event = retained_at("orders.paid", *parts)
    other = PARTS["a short id"][0]
    for some, events in (([parts], [event]), ([other, parts], [retained_at("orders.paid", *other), event])):
        text = sse.plain_events("orders.paid", "ep", some, account_id=ACCOUNT)
        expected = sse.events("orders.paid", "ep", events, account_id=ACCOUNT)
        assert text == (expected if is_plain else None)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_data_arrives(value: object) -> None:
    try:
        data = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    except TypeError:
        return
    [message] = parsed(sse.events("t", "e", [retained(data)], account_id=ACCOUNT)).messages
    assert message.json["data"] == value


def test_what_is_said_of_the_connection_is_no_message() -> None:
    parser = parsed(
        sse.retry(2500)
        + sse.recovered("t", epoch="ep", offset="1-0", first="", reason=None, id=b"A")
        + sse.HEARTBEAT
        + sse.recovered("t", epoch="eq", offset="0-0", first="9-0", reason=NotRecovered.PURGED, id=b"B")
        + sse.overflow()
        + sse.end(CloseReason.KEY_REVOKED)
        + sse.end(CloseReason.STOPPING)
    )
    assert (parser.retry_ms, parser.comments) == (2500, 1)
    found = [(message.type, message.json, message.last_event_id) for message in parser.messages]
    first = {"topic": "t", "recovered": True, "epoch": "ep", "offset": "1-0", "first": None}
    second = {"topic": "t", "recovered": False, "epoch": "eq", "offset": "0-0", "first": "9-0"}
    assert found[:2] == [("recovered", first, "A"), ("recovered", {**second, "reason": "purged"}, "B")]
    assert [(type_, json["reconnect"], id) for type_, json, id in found[2:]] == [
        ("overflow", True, "B"),
        ("end", False, "B"),
        ("end", True, "B"),
    ]
    assert [json["reason"] for _, json, _ in found[3:]] == ["key-revoked", "stopping"]


def test_every_reason_has_a_text() -> None:
    for reason in CloseReason:
        if reason not in (CloseReason.CLIENT_GONE, CloseReason.STALLED, CloseReason.IDLE):
            assert parsed(sse.end(reason)).messages[0].json["message"]


def test_a_moved_reader_gets_an_id_and_no_event() -> None:
    parser = parsed(b"data: 1\nid: A\n\n" + sse.moved(b"B"))
    assert parser.messages == [Message("1", last_event_id="A")]
    assert parser.last_event_id == "B"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("\ufeffdata: 1\n\n", ["1"]),
        ("data: 1\r\rdata:2\r\n\r\n", ["1", "2"]),
        ("data\ndata\n\n", ["\n"]),
        ("data:  1\n\n", [" 1"]),
        ("data: 1\n", []),
        ("event: x\n\ndata: 1\n\n", ["1"]),
        ("other: 1\ndata: 2\n\n", ["2"]),
    ],
)
def test_the_parser_follows_the_standard(text: str, messages: list[str]) -> None:
    for pieces in (1, 1000):
        parser = EventStreamParser()
        for at in range(0, len(text.encode()), pieces):
            parser.feed(text.encode()[at : at + pieces])
        parser.feed(b"")
        # A lone carriage return is a line break once something follows.
        parser.feed(b":\n")
        assert [message.data for message in parser.messages] == messages


def test_the_parser_takes_no_id_with_null_and_no_retry_of_other_signs() -> None:
    parser = parsed(b"id: A\ndata: 1\n\nid: B\0\nretry: 1s\nretry: -1\ndata: 2\n\n")
    assert [message.last_event_id for message in parser.messages] == ["A", "A"]
    assert parser.retry_ms is None
