"""The body of POST /v1/events: what is accepted, and which field each error names."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import Invalid, TooLarge
from shared.wire.events import MAX_EVENT_BYTES, MAX_EVENTS, Form, parse_events, position_of

LEAST: dict[str, Any] = {"topic": "orders.paid", "data": 1}
NOTIFICATION: dict[str, Any] = {"ep": "lamp", "path": "/3303/0/5700", "payload": "MjE="}


def body(posted: object) -> bytes:
    return json.dumps(posted).encode()


def device(topic: str, data: object, **more: object) -> dict[str, object]:
    return {"topic": f"device.{topic}", "data": data, **more}


def error_of(posted: object) -> Invalid:
    with pytest.raises(Invalid) as raised:
        parse_events(body(posted))
    return raised.value


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"data": 1}, "topic"),
    ({"topic": "orders"}, "data"),
    ({**LEAST, "priority": 1}, "priority"),
    ({**LEAST, "Topic": "x"}, "Topic"),
    ({**LEAST, "topic": ""}, "topic"),
    ({**LEAST, "topic": "a b"}, "topic"),
    ({**LEAST, "topic": "a\tb"}, "topic"),
    ({**LEAST, "topic": "a\u00a0b"}, "topic"),
    ({**LEAST, "topic": "a\x7f"}, "topic"),
    ({**LEAST, "topic": "x" * 256}, "topic"),
    ({**LEAST, "topic": 7}, "topic"),
    ({**LEAST, "topic": None}, "topic"),
    *(({**LEAST, name: 7}, name) for name in ("id", "name", "time", "to")),
    *(({**LEAST, "receipt": value}, "receipt") for value in (1, "true", [True])),
    *(({**LEAST, name: ""}, name) for name in ("id", "name", "time", "to")),
    *(({**LEAST, name: "a\nb"}, name) for name in ("id", "name", "time", "to")),
    *(({**LEAST, name: "x" * 256}, name) for name in ("id", "name", "time", "to")),
    (device("notifications", "lamp"), "data"),
    (device("notifications", None), "data"),
    (device("notifications", {"path": "/3"}), "data.ep"),
    (device("notifications", {**NOTIFICATION, "ep": ""}), "data.ep"),
    (device("notifications", {**NOTIFICATION, "ep": 3}), "data.ep"),
    (device("notifications", {"ep": "lamp"}), "data.path"),
    (device("notifications", {**NOTIFICATION, "path": ""}), "data.path"),
    (device("notifications", {**NOTIFICATION, "path": ["/3"]}), "data.path"),
    (device("registrations", ["lamp"]), "data"),
    (device("registrations", {"ept": "light"}), "data.ep"),
    (device("registrations", {"ep": "lamp", "ept": 1}), "data.ept"),
    (device("reg-updates", {"ept": "light"}), "data.ep"),
    (device("de-registrations", {"ep": "lamp"}), "data"),
    (device("de-registrations", ""), "data"),
    (device("registrations-expired", 1), "data"),
    (device("async-responses", {"id": "1"}), "to"),
    (device("async-responses", {"status": 200}, to="a"), "data.id"),
    (device("async-responses", {"id": 1}, to="a"), "data.id"),
    (device("async-responses", "1", to="a"), "data"),
]


@pytest.mark.parametrize(("posted", "field"), WRONG_FIELDS)
def test_error_names_its_field(posted: dict[str, Any], field: str) -> None:
    error = error_of(posted)

    assert [name for name, _ in error.fields] == [field]
    assert field in error.message
    assert not isinstance(error, TooLarge)


@pytest.mark.parametrize(("posted", "field"), WRONG_FIELDS)
def test_error_in_an_array_names_the_position_too(posted: dict[str, Any], field: str) -> None:
    assert [name for name, _ in error_of([LEAST, posted, LEAST]).fields] == [f"[1].{field}"]
    assert [name for name, _ in error_of([posted]).fields] == [f"[0].{field}"]


@pytest.mark.parametrize("posted", [None, 7, "text", True, [], 1.5])
def test_body_that_is_not_an_event(posted: object) -> None:
    assert error_of(posted).fields == []


@pytest.mark.parametrize("posted", [None, 7, "text", [], [LEAST]])
def test_item_that_is_not_an_event(posted: object) -> None:
    assert [name for name, _ in error_of([LEAST, posted]).fields] == ["[1]"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"topic=a", b'{"topic":"a","data":NaN}', b'{"topic":"a","data":"\xff"}', b'"\\ud800"', b"\0"],
)
def test_invalid_json(raw: bytes) -> None:
    with pytest.raises(Invalid, match="not JSON"):
        parse_events(raw)


def test_long_field_name_is_cut() -> None:
    error = error_of({**LEAST, "x" * 10_000: 1})

    assert len(error.message) < 300


@pytest.mark.parametrize("levels", [255, 1000, 1023, 1025, 100_000])
def test_data_nested_too_deeply_is_refused(levels: int) -> None:
    raw = b'{"topic":"a","data":' + b"[" * levels + b"]" * levels + b"}"

    with pytest.raises(Invalid):
        parse_events(raw)


def test_data_nested_deeply_is_accepted() -> None:
    data = deep(200)

    assert json.loads(parse_events(body({"topic": "a", "data": data}))[0].data) == data


def test_minimal_event() -> None:
    [event] = parse_events(body(LEAST))

    assert (event.topic, event.data, event.name, event.time, event.to) == ("orders.paid", b"1", "", "", None)
    assert event.id
    assert event.fields is None


@pytest.mark.parametrize("wanted", [True, False])
def test_receipt_is_optional(wanted: bool) -> None:
    asked, not_asked = parse_events(body([{**LEAST, "receipt": wanted}, LEAST]))

    assert asked.receipt is wanted
    assert not_asked.receipt is False


def test_event_with_every_field() -> None:
    posted = {"topic": "orders", "data": {"a": [1]}, "id": "i", "name": "n", "time": "t", "to": "k"}

    [event] = parse_events(body(posted))

    assert (event.id, event.name, event.time, event.to) == ("i", "n", "t", "k")
    assert json.loads(event.data) == {"a": [1]}


def test_null_is_the_same_as_left_out() -> None:
    [event] = parse_events(body({**LEAST, "id": None, "name": None, "time": None, "to": None}))

    assert event.id
    assert (event.name, event.time, event.to) == ("", "", None)


def test_null_is_valid_data() -> None:
    assert parse_events(body({"topic": "orders", "data": None}))[0].data == b"null"


def test_event_without_an_id_gets_its_own() -> None:
    made = parse_events(body([LEAST, LEAST, {**LEAST, "id": "mine"}]))

    assert made[2].id == "mine"
    assert len({event.id for event in made}) == 3
    assert {UUID(event.id).version for event in made[:2]} == {4}


def test_ids_of_two_requests_differ() -> None:
    made = [parse_events(body([LEAST] * MAX_EVENTS)) for _ in range(2)]

    assert len({event.id for events in made for event in events}) == 2 * MAX_EVENTS


def test_array_keeps_its_order() -> None:
    names = [str(number) for number in range(100)]

    assert [event.id for event in parse_events(body([{**LEAST, "id": name} for name in names]))] == names


@pytest.mark.parametrize("name", ["topic", "id", "name", "time", "to"])
def test_text_of_255_characters_is_accepted(name: str) -> None:
    [event] = parse_events(body({**LEAST, name: "é" * 255}))

    assert getattr(event, name) == "é" * 255


def test_as_many_events_as_the_limit() -> None:
    assert len(parse_events(body([LEAST] * MAX_EVENTS))) == 10_000


def test_one_event_more_is_too_many() -> None:
    with pytest.raises(TooLarge):
        parse_events(body([LEAST] * (MAX_EVENTS + 1)))


@pytest.mark.parametrize("at", ["", "[0]"])
def test_event_at_and_over_the_size_limit(at: str) -> None:
    around = len('""') + len("orders.paid") + len("name")
    fits = {**LEAST, "data": "x" * (MAX_EVENT_BYTES - around), "name": "name"}
    over = {**fits, "name": "names"}

    assert MAX_EVENT_BYTES == 262_144
    assert len(parse_events(body([fits] if at else fits))) == 1
    with pytest.raises(TooLarge) as raised:
        parse_events(body([over] if at else over))
    assert [name for name, _ in raised.value.fields] == [f"{at}.data" if at else "data"]


def test_data_is_counted_in_bytes() -> None:
    with pytest.raises(TooLarge):
        parse_events(json.dumps({"topic": "a", "data": "é" * (MAX_EVENT_BYTES // 2)}).encode())


@pytest.mark.parametrize(
    ("posted", "fields"),
    [
        (device("notifications", NOTIFICATION), {"ep": "lamp", "path": "/3303/0/5700"}),
        (device("notifications", {"ep": "lamp", "path": "3303/0"}), {"ep": "lamp", "path": "/3303/0"}),
        (device("registrations", {"ep": "lamp", "ept": "light"}), {"ep": "lamp", "ept": "light"}),
        (device("registrations", {"ep": "lamp", "ept": None}), {"ep": "lamp"}),
        (device("reg-updates", {"ep": "lamp", "resources": []}), {"ep": "lamp"}),
        (device("de-registrations", "lamp"), {"ep": "lamp"}),
        (device("registrations-expired", "lamp"), {"ep": "lamp"}),
        (device("async-responses", {"id": "1", "status": 200}, to="a"), {"id": "1"}),
        (device("something-else", 1), None),
    ],
)
def test_fields_of_device_topics(posted: dict[str, object], fields: dict[str, str] | None) -> None:
    [event] = parse_events(body(posted))

    assert event.fields == fields
    assert json.loads(event.data) == posted["data"], "the item travels as it was published"


@pytest.mark.parametrize(
    ("raw", "position"), [(b"[]", "[3]"), (b" \r\n\t[{}]", "[3]"), (b"{}", ""), (b' {"a":[]}', "")]
)
def test_position_of_an_event_in_a_body(raw: bytes, position: str) -> None:
    assert position_of(3, body=raw) == position


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "data",
    [
        b"123456789012345678901234567890",
        b'{"n": 0.1000000000000000055511151231257827, "n2": 1e2}',
        b'{ "a" : [ 1,\n2 ] }',
        b'{"b": 1, "a": 2}',
        '"\u00fc\\u00fc"'.encode(),
    ],
)
def test_data_keeps_the_publishers_bytes(data: bytes) -> None:
    assert parse_events(b'{"topic": "a", "data": %b }' % data)[0].data == data


@pytest.mark.parametrize("data", [b'"\xff"', b'"\\ud800"', b'{"a": "\xc3"}', b"1e999", b'"a\nb"', b"01"])
@pytest.mark.parametrize("form", Form)
def test_data_that_receivers_could_not_parse_is_refused(data: bytes, form: Form) -> None:
    with pytest.raises(Invalid, match="is not JSON"):
        parse_events(b'{"topic": "a", "data": %b}' % data, form=form)


@given(JSON)
def test_any_data_survives(data: object) -> None:
    assert json.loads(parse_events(body({"topic": "a", "data": data}))[0].data) == data
