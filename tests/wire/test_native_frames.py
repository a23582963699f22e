"""Frames of the native WebSocket: what is a request, what is refused, and what is none."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import Invalid
from shared.model.streams import Mark, NotRecovered, Start
from shared.wire.native import replies
from shared.wire.native.frames import (
    LARGEST_REF,
    OPERATIONS,
    Refused,
    Request,
    Subscribe,
    check,
    parse_frame,
)
from shared.wire.native.members import Malformed, members

TOKEN, ENTRY, CHANNEL = "a.b.c", "1795907470218-0", "ch_1"
BODIES: dict[str, list[dict[str, Any]]] = {
    "auth": [{"token": TOKEN}],
    "refresh": [{"token": TOKEN}],
    "subscribe": [
        {"topic": "a.b"},
        {"topic": "a", "from": "earliest"},
        {"topic": "a", "epoch": "5c0a-6ff4", "after": ENTRY},
        {"topic": "a", "epoch": "", "after": "0-0", "from": None},
    ],
    "unsubscribe": [{"topic": "a"}],
    "open": [{"channel": CHANNEL}, {"channel": "kitchen", "ack_timeout_s": 0.5 + 1, "in_flight": 1000}],
    "ack": [{"channel": CHANNEL, "entry": ENTRY}],
    "nack": [{"channel": CHANNEL, "entry": ENTRY}, {"channel": CHANNEL, "entry": ENTRY, "delay_s": 3600}],
    "close": [{"channel": CHANNEL}],
    "publish": [{"events": [{"topic": "a", "data": 1}]}, {"events": [], "idempotency_key": "k"}],
    "ping": [{}],
}
EVERY = [(operation, body) for operation, bodies in BODIES.items() for body in bodies]


def parsed(text: bytes) -> Request:
    request = parse_frame(text)
    check(request)
    return request


def test_every_operation_has_a_body_here() -> None:
    assert BODIES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize(("operation", "body"), EVERY)
def test_a_request_may_be_written_in_any_way(operation: str, body: dict[str, Any]) -> None:
    frame = {"ref": LARGEST_REF, operation: body}
    texts = [
        orjson.dumps(frame),
        json.dumps(frame).encode(),
        json.dumps(frame, indent=2).encode(),
        json.dumps(dict(reversed(frame.items())), separators=(",", ":")).encode() + b"\n",
        json.dumps({**frame, "ping" if operation != "ping" else "auth": None}).encode(),
        json.dumps(frame).replace('"ref"', '"\\u0072ef"').encode(),
    ]
    for text in texts:
        request = parsed(text)
        assert (request.ref, request.operation, request.size_bytes) == (LARGEST_REF, operation, len(text))


def test_a_place_is_an_epoch_and_an_offset() -> None:
    wanted: list[tuple[dict[str, Any], Mark | Start]] = [
        ({}, Start.LATEST),
        ({"from": "latest"}, Start.LATEST),
        ({"from": "earliest"}, Start.EARLIEST),
        ({"epoch": "e", "after": "1-2"}, Mark("e", "1-2")),
        ({"epoch": "", "after": "0-0"}, Mark("", "0-0")),
    ]
    for place, since in wanted:
        body = parsed(orjson.dumps({"ref": 1, "subscribe": {"topic": "a", **place}})).body
        assert isinstance(body, Subscribe)
        assert body.since == since


MALFORMED: list[tuple[str, str]] = [
    ("", "is not JSON"),
    ("{", "is not JSON"),
    ("nonsense", "is not JSON"),
    ('{"ref":1,"ping":{}}}', "is not JSON"),
    ('{"ref":1,"ping":{}} {}', "is not JSON"),
    ('{"ref":1,"ping":{"a":01}}', "is not JSON"),
    ('{"ref":NaN,"ping":{}}', "is not JSON"),
    ("\ufeff{}", "is not JSON"),
    ("[]", "is no JSON object"),
    ("1", "is no JSON object"),
    ("null", "is no JSON object"),
    ("{}", "has no operation that is known"),
    ('{"ref":1}', "has no operation that is known"),
    ('{"ref":1,"pong":{}}', "has no operation that is known"),
    ('{"ref":1,"ping":null}', "has no operation that is known"),
    ('{"ref":1,"ping":{},"auth":{}}', "has more than one operation"),
    ('{"ping":{}}', "has no ref"),
    ('{"ref":null,"ping":{}}', "has no ref"),
    ('{"ref":"1","ping":{}}', "has a ref that is no integer"),
    ('{"ref":1.0,"ping":{}}', "has a ref that is no integer"),
    ('{"ref":-1,"ping":{}}', "has a ref that is no integer"),
    ('{"ref":true,"ping":{}}', "has a ref that is no integer"),
    (f'{{"ref":{LARGEST_REF + 1},"ping":{{}}}}', "has a ref that is no integer"),
    ('{"ref":"1","ack":{"channel":"a","entry":"1-0"}}', "has a ref that is no integer"),
    ('{"ref":1,"ref":1,"ping":{}}', "has a name twice"),
    ('{"ref":1,"ping":{},"ping":{}}', "has a name twice"),
    ('{"ref":1,"x":1,"ping":{},"x":2}', "has a name twice"),
    ('{"ref":1,"subscribe":{"topic":"a","topic":"b"}}', "has a name twice"),
    ('{"ref":1,"subscribe":{"topic":"a","topi\\u0063":"b"}}', "has a name twice"),
    ('{"ref":1,"publish":{"events":[],"events":[]}}', "has a name twice"),
    ('{"ref":1,"publish":{"events":[]},"publish":{"events":[]}}', "has a name twice"),
    ('{"ref":1,"publish":{"events":[' + "[" * 2000 + "]" * 2000 + "]}}", "is nested too deeply"),
]


@pytest.mark.parametrize(("text", "why"), MALFORMED)
def test_a_frame_that_cannot_be_answered_is_malformed(text: str, why: str) -> None:
    with pytest.raises(Malformed) as malformed:
        parsed(text.encode())
    assert str(malformed.value).startswith(f"the frame {why}")


REFUSED: list[tuple[str, Any, str]] = [
    ("ping", {"a": 1}, "ping.a: unknown field"),
    ("ping", [], "ping: must be an object, not an array"),
    ("auth", {}, "auth.token: is missing"),
    ("auth", {"token": 1}, "auth.token: must be a string"),
    ("auth", {"token": ""}, "auth.token: "),
    ("auth", {"token": "a" * 8193}, "auth.token: "),
    ("subscribe", {"topic": "a.*"}, "subscribe.topic: must be exact"),
    ("subscribe", {"topic": "system.a"}, "subscribe.topic: begins with the word system"),
    ("subscribe", {"topic": "device.a"}, "subscribe.topic: begins with the word device"),
    ("subscribe", {"topic": "a b"}, "subscribe.topic: "),
    ("subscribe", {"topic": "a", "from": "first"}, "subscribe.from: must be latest or earliest"),
    ("subscribe", {"topic": "a", "after": "1-0"}, "subscribe.epoch: is missing"),
    ("subscribe", {"topic": "a", "epoch": "e"}, "subscribe.after: is missing"),
    ("subscribe", {"topic": "a", "epoch": "e", "after": "1"}, "subscribe.after: must be the offset"),
    ("subscribe", {"topic": "a", "epoch": "e" * 33, "after": "1-0"}, "subscribe.epoch: "),
    ("subscribe", {"topic": "a", "epoch": "é", "after": "1-0"}, "subscribe.epoch: must be the `epoch`"),
    ("subscribe", {"topic": "a", "epoch": "e", "after": "1-0", "from": "latest"}, "subscribe.from: "),
    ("unsubscribe", {"topic": "#"}, "unsubscribe.topic: must be exact"),
    ("open", {"channel": ""}, "open.channel: "),
    ("open", {"channel": "a", "ack_timeout_s": 0}, "open.ack_timeout_s: must be a number >= 1"),
    ("open", {"channel": "a", "ack_timeout_s": 3601}, "open.ack_timeout_s: "),
    ("open", {"channel": "a", "in_flight": 0}, "open.in_flight: must be an integer >= 1"),
    ("open", {"channel": "a", "in_flight": 1001}, "open.in_flight: "),
    ("open", {"channel": "a", "in_flight": 1.5}, "open.in_flight: "),
    ("ack", {"channel": "a"}, "ack.entry: is missing"),
    ("ack", {"channel": "a", "entry": "1"}, "ack.entry: must be the `entry` of an event"),
    ("nack", {"channel": "a", "entry": "1-0", "delay_s": -1}, "nack.delay_s: "),
    ("nack", {"channel": "a", "entry": "1-0", "delay_s": 3601}, "nack.delay_s: "),
    ("close", {"channel": 1}, "close.channel: must be a string"),
    ("publish", {}, "publish.events: is missing"),
    ("publish", {"events": [], "key": "k"}, "publish.key: unknown field"),
]


@pytest.mark.parametrize(("operation", "body", "why"), REFUSED)
def test_a_request_that_breaks_a_rule_is_refused(operation: str, body: Any, why: str) -> None:
    for frame in ({"ref": 7, operation: body}, {operation: body, "ref": 7}):
        with pytest.raises(Refused) as refused:
            parsed(orjson.dumps(frame))
        assert str(refused.value).startswith(why)
        assert (refused.value.ref, refused.value.operation) == (7, operation)
        assert isinstance(refused.value, Invalid)


def test_a_member_beside_the_operation_is_refused() -> None:
    with pytest.raises(Refused, match="token: unknown field"):
        parsed(b'{"ref":1,"ping":{},"token":null}')


@pytest.mark.parametrize("operation", ["ack", "nack"])
def test_only_acks_go_without_a_ref(operation: str) -> None:
    assert parsed(orjson.dumps({operation: BODIES[operation][0]})).ref is None
    with pytest.raises(Refused) as refused:
        parsed(orjson.dumps({operation: {}}))
    assert refused.value.ref is None


# Any text at all

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["ref", "ping", "a", "é", '"', "\\", ""]) | st.text(max_size=3)
BLANK = st.text(" \t\r\n", max_size=2)


@st.composite
def objects(draw: st.DrawFn) -> tuple[str, list[str]]:
    """The text of an object, written in any way, and its names in order."""
    parts, names = [], []
    for name in draw(st.lists(NAMES, max_size=4)):
        written = draw(st.sampled_from([json.dumps(name), json.dumps(name, ensure_ascii=False)]))
        value = json.dumps(draw(JSON), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
        blanks = [draw(BLANK) for _ in range(4)]
        parts.append(f"{blanks[0]}{written}{blanks[1]}:{blanks[2]}{value}{blanks[3]}")
        names.append(name)
    return f"{draw(BLANK)}{{{','.join(parts) or draw(BLANK)}}}{draw(BLANK)}", names


@given(objects())
def test_a_name_that_stands_twice_is_always_found(written: tuple[str, list[str]]) -> None:
    text, names = written
    if len(set(names)) < len(names):
        with pytest.raises(Malformed):
            members(text.encode())
        return
    found = members(text.encode())
    assert list(found) == names
    assert {name: json.loads(value) for name, value in found.items()} == json.loads(text)


@given(st.text(max_size=60) | st.text('{}[]":,ref01ping ', max_size=40))
def test_any_text_is_a_request_refused_or_malformed(text: str) -> None:
    try:
        request = parsed(text.encode())
    except (Malformed, Refused):
        return
    assert json.loads(text).keys() >= {request.operation}


# Replies


def test_what_is_said_is_json() -> None:
    said = replies.begun("a", epoch="e", offset="1-0", first="", reason=NotRecovered.LOST)
    place = {"topic": "a", "epoch": "e", "offset": "1-0", "recovered": False, "reason": "lost"}
    texts: list[tuple[bytes, Any]] = [
        (replies.answer(1, "pong", {}), {"ref": 1, "pong": {}}),
        (replies.recovered(said), {"recovered": place}),
        (replies.moved("a", "1-0"), {"moved": {"topic": "a", "offset": "1-0"}}),
        (replies.ended("a", "unbound"), {"ended": {"topic": "a", "reason": "unbound"}}),
        (
            replies.error(None, replies.ErrorCode.TOO_MANY, "wait", retry_after_s=2),
            {"error": {"code": "too_many", "message": "wait", "retry_after_s": 2}},
        ),
        (replies.published(2, b'[{"id":"e"}]'), {"ref": 2, "published": [{"id": "e"}]}),
    ]
    for text, value in texts:
        assert json.loads(text) == value
