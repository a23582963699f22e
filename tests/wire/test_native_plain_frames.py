"""A frame that is read at once is the request that the careful parser finds, or is none."""

import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import GatewayError
from shared.wire.native import frames
from shared.wire.native.frames import Publish, Request, check, parse_frame

EVENT = {"topic": "a", "data": {"b": [1, "]}}"]}}


def carefully(text: bytes) -> Request | str:
    """What the parser that looks at every name finds, or its error."""
    try:
        return frames._checked(text)
    except GatewayError as error:
        return f"{type(error).__name__}: {error}"


def at_once(text: bytes) -> Request | str:
    """The same by the way of a socket, which parses the events, and asks again only if they are none."""
    try:
        request = parse_frame(text)
        if not request.is_checked:
            assert isinstance(request.body, Publish)
            try:
                found = msgspec.json.decode(bytes(request.body.events), type=list[Any])
            except msgspec.DecodeError:
                check(request)
                raise
            # As events are: this is not invalid JSON that msgspec takes.
            orjson.dumps(found)
    except GatewayError as error:
        return f"{type(error).__name__}: {error}"
    return Request(request.ref, request.operation, request.body, request.size_bytes)


@pytest.mark.parametrize("dumps", [orjson.dumps, lambda frame: json.dumps(frame).encode()])
@pytest.mark.parametrize("ref", [0, 1, 2**53 - 1])
def test_what_libraries_write_is_parsed_once(dumps: Any, ref: int) -> None:
    text = dumps({"ref": ref, "publish": {"events": [EVENT, EVENT]}})

    request = parse_frame(text)

    assert not request.is_checked
    assert (request.ref, request.operation, request.size_bytes) == (ref, "publish", len(text))
    assert isinstance(request.body, Publish)
    assert json.loads(bytes(request.body.events)) == [EVENT, EVENT]
    check(request)


@pytest.mark.parametrize("dumps", [orjson.dumps, lambda frame: json.dumps(frame).encode()])
@pytest.mark.parametrize("more", [{}, {"ref": 3}])
def test_an_ack_as_libraries_write_it_is_read_at_once(
    dumps: Any, more: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = dumps({**more, "ack": {"channel": "ch_0123", "entry": "1795867200000-3"}})
    wanted = frames._checked(text)

    monkeypatch.setattr(frames, "_checked", None)

    assert parse_frame(text) == wanted


PIECES = st.sampled_from(
    [
        *(
            '{"ref":',
            "1",
            "01",
            "-1",
            "9007199254740993",
            ',"publish":',
            '{"events":',
            "[",
            "]",
            "{",
            "}",
            "]}}",
        ),
        *(
            json.dumps(EVENT),
            '{"topic":"a"}',
            ",",
            " ",
            '"events":[]',
            '"ref":2',
            '"ping":{}',
            '"\\u0041"',
            '"',
        ),
        *('"idempotency_key":"k"', '"entry":"2-0"', "null", "\\", "é", "\t", ":"),
    ]
)
WHOLE = st.sampled_from(
    [
        '{"ack":{"channel":"0123","entry":"1-0"}}',
        '{"ref": 7, "ack": {"channel": "ch_a-B", "entry": "1795867200000-12"}}',
        '{"ref":1,"publish":{"events":[]}}',
        '{"ref": 1, "publish": {"events": [1, {"a": []}]}}',
        '{"ref":1,"publish":{"events":[],"idempotency_key":"k"}}',
    ]
)


@given(
    whole=WHOLE,
    pieces=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12), PIECES), max_size=4),
)
def test_both_ways_find_the_same(whole: str, pieces: list[tuple[int, int, str]]) -> None:
    text = whole
    for at, cut, piece in pieces:
        text = text[:at] + piece + text[at + cut :]
    assert at_once(text.encode()) == carefully(text.encode())
