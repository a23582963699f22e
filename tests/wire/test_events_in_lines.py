"""Newline-delimited bodies of POST /v1/events: blank lines do not count as events, but as lines."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import Invalid, TooLarge
from shared.wire.events import MAX_EVENTS, Form, form_of, parse_events, position_of

LEAST: dict[str, Any] = {"topic": "orders.paid", "data": 1}
LINE = json.dumps(LEAST).encode()


def data_in(body: bytes) -> list[object]:
    return [json.loads(event.data) for event in parse_events(body, form=Form.LINES)]


def error_of(body: bytes) -> Invalid:
    with pytest.raises(Invalid) as raised:
        parse_events(body, form=Form.LINES)
    return raised.value


@pytest.mark.parametrize(
    ("media_type", "form"),
    [
        ("application/x-ndjson", Form.LINES),
        ("application/ndjson", Form.LINES),
        ("application/json", Form.JSON),
        ("application/x-www-form-urlencoded", Form.JSON),
        ("", Form.JSON),
    ],
)
def test_media_type_selects_the_form(media_type: str, form: Form) -> None:
    assert form_of(media_type) is form


@pytest.mark.parametrize(
    "body", [LINE, LINE + b"\n", LINE + b"\r\n", b"\n\n" + LINE, b" \t\r\n" + LINE, b"\t" + LINE + b"  \n \n"]
)
def test_one_line(body: bytes) -> None:
    assert data_in(body) == [1]


def test_lines_keep_their_order_and_get_ids_by_index() -> None:
    body = b"\n".join(json.dumps({**LEAST, "data": n}).encode() for n in range(100))

    events = parse_events(body, form=Form.LINES, id_of=lambda index: f"i{index}")

    assert [(event.id, event.data) for event in events] == [(f"i{n}", str(n).encode()) for n in range(100)]


def test_given_id_stays() -> None:
    posted = [LEAST, {**LEAST, "id": "mine"}, LEAST]

    events = parse_events(json.dumps(posted).encode(), id_of=lambda index: f"i{index}")

    assert [event.id for event in events] == ["i0", "mine", "i2"]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"{", "line 4"),
        (b"\xff", "line 4"),
        (b"1", "line 4"),
        (b"null", "line 4"),
        (b"[" + LINE + b"]", "line 4"),
        (LINE + LINE, "line 4"),
        (b"\x0c", "line 4"),
        (b'{"data":1}', "line 4.topic"),
        (b'{"topic":"a","data":1,"x":1}', "line 4.x"),
        (b'{"topic":"device.notifications","data":{"ep":"a"}}', "line 4.data.path"),
    ],
)
def test_error_names_its_line(line: bytes, field: str) -> None:
    error = error_of(LINE + b"\n \r\n\n" + line + b"\n{")

    assert [name for name, _ in error.fields] == [field]
    assert field in error.message


@pytest.mark.parametrize("body", [b"", b"\n", b" \t\r\n\n "])
def test_body_without_an_event(body: bytes) -> None:
    assert error_of(body).fields == []


def test_same_limit_as_in_an_array() -> None:
    body = (LINE + b"\n") * MAX_EVENTS

    assert len(data_in(body)) == MAX_EVENTS
    with pytest.raises(TooLarge):
        parse_events(body + LINE, form=Form.LINES)


@pytest.mark.parametrize("blank", [b"\n", b" ", b" \n"])
def test_megabytes_of_blank_lines_cost_little(blank: bytes) -> None:
    body = blank * (8 * 1024 * 1024 // len(blank))
    started = time.process_time()

    error_of(body)

    assert time.process_time() - started < 2


@given(st.lists(st.sampled_from([b"", b" ", b"\r", LINE, LINE + b"\r", b" " + LINE])))
def test_position_of_an_event_is_its_line(lines: list[bytes]) -> None:
    body = b"\n".join(lines)
    expected = [f"line {number}" for number, line in enumerate(lines, 1) if line.strip()]

    assert [position_of(n, body=body, form=Form.LINES) for n in range(len(expected))] == expected
    assert len(expected) == (len(data_in(body)) if expected else 0)
