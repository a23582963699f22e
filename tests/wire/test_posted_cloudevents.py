"""CloudEvents as they are posted: each mode, each error, and the official SDK as the sender."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import Invalid, TooLarge
from shared.model.events import Event, Notification
from shared.wire.cloudevents import BATCH_MEDIA_TYPE, MEDIA_TYPE, structured
from shared.wire.events import MAX_EVENT_BYTES, MAX_EVENTS, Form, form_of
from shared.wire.posted_cloudevents import cloudevents_in
from tests.wire.cloudevents import valid

LEAST = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "orders.paid"}
KEPT = {"source": "/shop"}
Headers = Sequence[tuple[bytes, bytes]]


def posted(*events: Any, form: Form = Form.STRUCTURED) -> list[Event]:
    text = orjson.dumps(events[0] if form is Form.STRUCTURED else events)
    return list(cloudevents_in(text, form=form))


def headers_of(attributes: dict[str, str]) -> Headers:
    return [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()]


def binary(headers: Headers, body: bytes = b"1", content_type: str = "application/json") -> Event:
    [event] = cloudevents_in(body, form=Form.BINARY, headers=headers, content_type=content_type)
    return event


def kept(event: Event) -> dict[str, Any]:
    attributes: dict[str, Any] = orjson.loads(event.attributes)
    return attributes


def refusal(call: Callable[[], object]) -> tuple[str | None, str]:
    """The name and the rule of the Invalid that this raises."""
    with pytest.raises(Invalid) as raised:
        call()
    return named(raised.value)


def named(error: Invalid) -> tuple[str | None, str]:
    return error.fields[0] if error.fields else (None, error.message)


def test_least() -> None:
    [event] = posted(LEAST)

    assert event == Event("e1", "orders.paid", b"null", attributes=event.attributes)
    assert kept(event) == {**KEPT, "no_data": True}


@pytest.mark.parametrize(
    ("more", "data", "attributes"),
    [
        ({"data": {"a": 1.0}}, b'{"a":1.0}', {}),
        ({"data": None}, b"null", {}),
        ({"data": "text", "datacontenttype": "text/plain"}, b'"text"', {"datacontenttype": "text/plain"}),
        ({"data_base64": "AAE="}, b'"AAE="', {"data_base64": True}),
        ({"data_base64": ""}, b'""', {"data_base64": True}),
        ({"data": 1, "data_base64": None}, b"1", {}),
        ({"data": 1, "subject": "s ü", "dataschema": "https://x.example/s"}, b"1",
         {"subject": "s ü", "dataschema": "https://x.example/s"}),
        ({"data": 1, "region": "eu", "retries": -3, "urgent": False, "to": "x", "topic": "y"}, b"1",
         {"region": "eu", "retries": -3, "urgent": False, "to": "x", "topic": "y"}),
        ({"data": 1, "unset": None, "time": None, "subject": None}, b"1", {}),
        ({"data": 1, "notifytime": "Monday"}, b"1", {"notifytime": "Monday"}),
    ],
)  # fmt: skip
def test_structured(more: dict[str, Any], data: bytes, attributes: dict[str, Any]) -> None:
    [event] = posted({**LEAST, **more})

    assert (event.data, kept(event)) == (data, {**KEPT, **attributes})


def test_data_keeps_its_bytes() -> None:
    data = b'{"total": 1.0,  "n": 123456789012345678901234567890}'
    [event] = cloudevents_in(orjson.dumps(LEAST)[:-1] + b', "data" : ' + data + b" }", form=Form.STRUCTURED)

    assert event.data == data


def test_what_is_said_to_the_gateway() -> None:
    ours = {"time": "2026-01-31T12:00:00+01:00", "notifyto": "checkout", "notifyreceipt": True}
    [event] = posted({**LEAST, **ours, "data": 1})

    assert (event.time, event.to, event.receipt) == ("2026-01-31T12:00:00+01:00", "checkout", True)
    assert kept(event) == KEPT
    [event] = posted({**LEAST, "notifycustomer": "c1", "notifyreceipt": "false", "data": 1})
    assert (event.customer, event.receipt, kept(event)) == ("c1", False, KEPT)


def test_of_a_device() -> None:
    [event] = posted({**LEAST, "type": "device.notifications", "data": {"ep": "d", "path": "3"}})

    assert event.fields == {"ep": "d", "path": "/3"}


A_LOT = {f"x{n}": "1" for n in range(61)}
NO_NAME = "is no attribute's name: that is 1 to 64 lower-case letters or digits"
WRONG = [
    ({"specversion": "0.3"}, "specversion", "must be 1.0"),
    ({"specversion": 1}, "specversion", "must be 1.0"),
    ({"id": ""}, "id", "must not be empty"),
    ({"id": 17}, "id", "must be a string"),
    ({"id": "i" * 256}, "id", "must be at most 255 characters"),
    ({"source": ""}, "source", "must not be empty"),
    ({"source": "my shop"}, "source", "must be a URI reference, in ASCII"),
    ({"source": "/ü"}, "source", "must be a URI reference, in ASCII"),
    ({"source": "/%zz"}, "source", "must be a URI reference, in ASCII"),
    ({"source": "/" + "s" * 2048}, "source", "must be at most 2048 characters"),
    ({"type": "a b"}, "type", "must have no blanks: it is the topic"),
    ({"type": "t" * 256}, "type", "must be at most 255 characters"),
    ({"type": "system.x"}, "type", "begins with the word system, which is reserved"),
    ({"time": "Monday"}, "time", "must be a time of RFC 3339, as 2026-01-31T12:00:00Z"),
    ({"time": 1795824000}, "time", "must be a string"),
    ({"subject": ""}, "subject", "must not be empty"),
    ({"subject": "a\u0085"}, "subject", "must have no control characters"),
    ({"subject": "\ufffe"}, "subject", "must have no control characters"),
    ({"dataschema": "/schema"}, "dataschema", "must be a URI, in ASCII"),
    ({"datacontenttype": "json"}, "datacontenttype", "must be a media type"),
    ({"data_base64": "AA-_", "data": ...}, "data_base64", "must be base64, with `+`, `/` and padding"),
    ({"data_base64": 1, "data": ...}, "data_base64", "must be base64, with `+`, `/` and padding"),
    ({"data_base64": "AAE="}, "data_base64", "must be left out beside `data`"),
    ({"no_data": True}, "no_data", NO_NAME),
    ({"my_ext": "1"}, "my_ext", NO_NAME),
    ({"Region": "1"}, "Region", NO_NAME),
    ({"": "1"}, '""', NO_NAME),
    ({"x" * 65: "1"}, "x" * 64, NO_NAME),
    ({"ext": 1.5}, "ext", "must be a string, an integer of 32 bits, true or false"),
    ({"ext": 2**31}, "ext", "must be a string, an integer of 32 bits, true or false"),
    ({"ext": {"a": 1}}, "ext", "must be a string, an integer of 32 bits, true or false"),
    ({"ext": []}, "ext", "must be a string, an integer of 32 bits, true or false"),
    ({"ext": "x" * 2049}, "ext", "must be at most 2048 characters"),
    (A_LOT, "x60", "is one too many: an event has at most 64 attributes"),
    ({"notifyto": "a", "notifycustomer": "b"}, "notifycustomer",
     "must be left out beside notifyto, which names one channel"),
    ({"notifyto": ""}, "notifyto", "must not be empty"),
    ({"notifyreceipt": "yes"}, "notifyreceipt", "must be true or false"),
    ({"notifyreceipt": 1}, "notifyreceipt", "must be true or false"),
    ({"notifycustommer": "c"}, "notifycustommer",
     "is unknown: of the names with notify there are notifyto, notifycustomer, notifyreceipt, notifytime"),
    ({"type": "device.notifications", "data": {"ep": "d"}}, "data.path",
     "must be a string that is not empty"),
    ({"type": "device.async-responses", "data": {"id": "1"}}, "notifyto",
     "is missing: an async-response is for one channel"),
    ({"type": "device.de-registrations", "data_base64": "AAE=", "data": ...}, "data_base64",
     "must be left out: on this topic the event has `data`"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "field", "message"), WRONG)
@pytest.mark.parametrize("form", [Form.STRUCTURED, Form.BATCH])
def test_wrong_attribute(form: Form, more: dict[str, Any], field: str, message: str) -> None:
    """`...` is a member that is missing."""
    wrong = {name: value for name, value in {**LEAST, "data": 1, **more}.items() if value is not ...}
    events = [wrong] if form is Form.STRUCTURED else [LEAST, wrong]

    at = field if form is Form.STRUCTURED else f"[1].{field}"
    assert refusal(lambda: posted(*events, form=form)) == (at, message)


@pytest.mark.parametrize("name", LEAST)
def test_missing_attribute(name: str) -> None:
    without = {each: value for each, value in LEAST.items() if each != name}
    assert refusal(lambda: posted({**without, name: None})) == (name, "is missing")
    assert refusal(lambda: posted(without)) == (name, "is missing")
    assert refusal(lambda: binary(headers_of(without))) == (f"ce-{name}", "is missing")


@pytest.mark.parametrize(
    ("body", "form", "field", "message"),
    [
        (b"", Form.STRUCTURED, None, "the body is not JSON"),
        (b"[]", Form.STRUCTURED, None, "must be an object, not an array"),
        (b"{", Form.STRUCTURED, None, "the body is not JSON"),
        (b'{"id":"a","id":"b"}', Form.STRUCTURED, "id", "must be given once"),
        (b'{"data":1,"dat\\u0061":2}', Form.STRUCTURED, "data", "must be given once"),
        (b'[{"id":"a","id":"b"}]', Form.BATCH, "[0].id", "must be given once"),
        (b"[]", Form.BATCH, None, "the batch of events is empty"),
        (b"{}", Form.BATCH, None, "must be an array, not an object"),
        (b"[{}, 1]", Form.BATCH, "[0].specversion", "is missing"),
        (b"[1]", Form.BATCH, "[0]", "must be an object, not an integer"),
        (orjson.dumps(LEAST)[:-1] + b',"data":"\xff"}', Form.STRUCTURED, "data", "is not JSON"),
        (orjson.dumps(LEAST)[:-1] + b',"ext":"\xff"}', Form.STRUCTURED, "ext", "is not JSON"),
        (orjson.dumps(LEAST)[:-1] + b',"data":' + b"[" * 300 + b"]" * 300 + b"}", Form.STRUCTURED, "data",
         "is nested too deeply"),
    ],
)  # fmt: skip
def test_wrong_body(body: bytes, form: Form, field: str | None, message: str) -> None:
    name, text = refusal(lambda: list(cloudevents_in(body, form=form)))

    assert name == field
    assert text.startswith(message)


def test_most_events() -> None:
    one = orjson.dumps(LEAST)
    batch = b"[" + b",".join([one] * MAX_EVENTS) + b"]"
    assert sum(1 for _ in cloudevents_in(batch, form=Form.BATCH)) == MAX_EVENTS

    with pytest.raises(TooLarge, match="10001 events"):
        list(cloudevents_in(batch[:-1] + b"," + one + b"]", form=Form.BATCH))


@pytest.mark.parametrize("more", [0, 1])
def test_most_bytes(more: int) -> None:
    """All that is kept counts: id, type, the other attributes and the data."""
    kept_bytes = len("e1") + len("orders.paid") + len(orjson.dumps(KEPT))
    event = {**LEAST, "data": "x" * (MAX_EVENT_BYTES - kept_bytes - len('""') + more)}
    if not more:
        assert len(posted(event)) == 1
        return
    with pytest.raises(TooLarge, match="data: the event is over 256 KiB"):
        posted(event)


def test_a_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge):
        list(cloudevents_in(b"{" + b" " * 2 * MAX_EVENT_BYTES + b"}", form=Form.STRUCTURED))


@pytest.mark.parametrize(
    ("body", "content_type", "data", "attributes"),
    [
        (b'{"a": 1}', "application/json", b'{"a": 1}', {}),
        (b'{"a": 1}', "application/vnd.x+json; v=1", b'{"a": 1}', {}),
        (b'{"a": 1}', "", b'{"a": 1}', {}),
        (b"", "", b"null", {"no_data": True}),
        (b"", "application/json", b"null", {"no_data": True}),
        ("ü".encode(), "text/plain", '"ü"'.encode(), {}),
        ("ü".encode(), 'text/plain; charset="UTF-8"', '"ü"'.encode(), {}),
        (b"\xfc", "text/plain", b'"/A=="', {"data_base64": True}),
        (b"a", "text/plain; charset=latin-1", b'"YQ=="', {"data_base64": True}),
        (b"<a/>", "application/xml", b'"<a/>"', {}),
        (b"<a/>", "application/soap+xml", b'"<a/>"', {}),
        (b"[1]", "application/octet-stream", b'"WzFd"', {"data_base64": True}),
        (b"a=1", "application/x-www-form-urlencoded", b'"YT0x"', {"data_base64": True}),
    ],
)  # fmt: skip
def test_binary_data(body: bytes, content_type: str, data: bytes, attributes: dict[str, Any]) -> None:
    event = binary(headers_of(LEAST), body, content_type)

    typed = {"datacontenttype": content_type} if content_type else {}
    assert (event.data, kept(event)) == (data, {**KEPT, **typed, **attributes})


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"%e2%82%ac", "€"),
        (b'"a \\"b\\" %20c"', 'a "b"  c'),
        (b"100%", "100%"),
        (b"%2541", "%41"),
        (b"  a  ", "a"),
        (b'"', '"'),
    ],
)
def test_binary_value(raw: bytes, value: str) -> None:
    assert kept(binary([*headers_of(LEAST), (b"ce-subject", raw)]))["subject"] == value


@pytest.mark.parametrize(
    ("headers", "body", "content_type", "field", "message"),
    [
        ({"subject": "%C0%A0"}, b"1", "application/json", "ce-subject", "must be ASCII"),
        ({"subject": "ü"}, b"1", "application/json", "ce-subject", "must be ASCII"),
        ({"subject": "%0A"}, b"1", "application/json", "ce-subject", "must have no control characters"),
        ({"subject": ""}, b"1", "application/json", "ce-subject", "must not be empty"),
        ({"datacontenttype": "a/b"}, b"1", "application/json", "ce-datacontenttype", "must be left out"),
        ({"data": "1"}, b"1", "application/json", "ce-data", "must be left out"),
        ({"my-ext": "1"}, b"1", "application/json", "ce-my-ext", "is no attribute's name"),
        ({"specversion": "0.3"}, b"1", "application/json", "ce-specversion", "must be 1.0"),
        ({"notifyreceipt": "no"}, b"1", "application/json", "ce-notifyreceipt", "must be true or false"),
        ({"dataschema": "x"}, b"1", "application/json", "ce-dataschema", "must be a URI"),
        ({}, b"{", "application/json", "data", "is not JSON"),
        ({}, b"{", "", "Content-Type", "is missing, and the body is not JSON"),
        ({}, b"1", "json", "Content-Type", "must be a media type"),
        ({"type": "device.registrations"}, b"[]", "application/json", "data", "must be an object"),
        ({"type": "device.registrations"}, b"{}", "application/json", "data.ep", "must be a string"),
        ({"type": "device.async-responses"}, b'{"id":"1"}', "application/json", "ce-notifyto", "is missing"),
    ],
)  # fmt: skip
def test_wrong_in_binary(
    headers: dict[str, str], body: bytes, content_type: str, field: str, message: str
) -> None:
    name, text = refusal(lambda: binary(headers_of({**LEAST, **headers}), body, content_type))

    assert name == field
    assert text.startswith(message)


def test_repeated_header() -> None:
    repeated = [*headers_of(LEAST), (b"ce-id", b"e2")]

    assert refusal(lambda: binary(repeated)) == ("ce-id", "must be given once")


@pytest.mark.parametrize(
    ("media_type", "form"),
    [
        (MEDIA_TYPE, Form.STRUCTURED),
        (BATCH_MEDIA_TYPE, Form.BATCH),
        ("application/json", Form.JSON),
        ("text/plain", Form.JSON),
        ("application/ndjson", Form.LINES),
    ],
)
def test_form(media_type: str, form: Form) -> None:
    assert form_of(media_type) is form


@pytest.mark.parametrize(
    "media_type",
    ["application/cloudevents", "application/cloudevents+avro", "application/cloudevents-batch+protobuf"],
)
def test_other_formats(media_type: str) -> None:
    assert refusal(lambda: form_of(media_type))[0] == "Content-Type"


PAID = {"type": "orders.paid", "source": "/shop"}
SENT = [
    ({**PAID, "id": "e1", "subject": '50 % ü "x"', "region": "eu"}, {"a": 1}),
    ({**PAID, "source": "https://x.example/%C3%BC?a=b#c", "datacontenttype": "text/plain"}, "Grüße"),
    ({**PAID, "source": "urn:uuid:1", "datacontenttype": "image/png"}, b"\x89PNG\x00"),
    ({**PAID, "time": datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)}, {"b": []}),
    (PAID, None),
]


@pytest.mark.parametrize(("attributes", "data"), SENT)
@pytest.mark.parametrize("mode", ["structured", "binary", "batch"])
def test_there_and_back_with_the_official_sdk(mode: str, attributes: dict[str, Any], data: Any) -> None:
    sent = CloudEvent(dict(attributes), data)
    made = http.to_binary_event(sent) if mode == "binary" else http.to_structured_event(sent)
    body = b"[" + made.body + b"]" if mode == "batch" else made.body
    headers = [(name.lower().encode(), value.encode()) for name, value in made.headers.items()]
    content_type = made.headers.get("content-type", "")
    form = {"structured": Form.STRUCTURED, "binary": Form.BINARY, "batch": Form.BATCH}[mode]
    ce = [header for header in headers if header[0].startswith(b"ce-")]

    [event] = cloudevents_in(body, form=form, headers=ce, content_type=content_type)

    text = structured(as_notification(event), account_id="a1")
    valid(text)
    came = http.from_structured_event(http.HTTPMessage({"content-type": MEDIA_TYPE}, text))
    # Without a media type the data is JSON, and goes out as such.
    wanted = {"datacontenttype": "application/json"} if data is not None else {}
    assert came.get_attributes() == wanted | dict(sent.get_attributes())
    assert came.get_data() == data


def as_notification(event: Event) -> Notification:
    return Notification(
        "1795824000000-0",
        event.id,
        event.topic,
        event.data,
        event.name,
        event.time,
        attributes=event.attributes,
    )


names = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        *LEAST,
        "time",
        "subject",
        "data",
        "data_base64",
        "datacontenttype",
        "dataschema",
        "notifyto",
        "notifyreceipt",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fair = st.fixed_dictionaries(
    {},
    optional={
        "time": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
        "subject": st.text(max_size=10),
        "datacontenttype": st.sampled_from(["text/plain", "application/json", "a/b; c=d", ""]),
        "data": values,
        "data_base64": st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode()),
        "ext": values,
    },
).map(lambda more: {**LEAST, **more})
objects = fair | st.dictionaries(names, values, max_size=8).map(lambda more: {**LEAST, **more})


def taken_or_wrong(take: Callable[[], Event]) -> Invalid | None:
    """What is taken goes out valid, under its own id, source, type and data."""
    try:
        event = take()
    except Invalid as error:
        return error
    out = valid(structured(as_notification(event), account_id="a1"))
    assert (out["id"], out["source"], out["type"]) == (event.id, kept(event)["source"], event.topic)
    if not kept(event).get("no_data"):
        assert out.get("data", out.get("data_base64")) == orjson.loads(event.data)
    return None


@given(objects | values, st.sampled_from([Form.STRUCTURED, Form.BATCH]))
def test_anything_structured(value: Any, form: Form) -> None:
    """It is taken, and then goes out valid; or the error names what is wrong."""
    text = json.dumps([value] if form is Form.BATCH else value).encode()
    wrong = taken_or_wrong(lambda: next(cloudevents_in(text, form=form)))

    assert wrong is None or named(wrong)[0] is not None or not isinstance(value, dict)


@given(
    st.dictionaries(
        st.binary(max_size=6) | st.sampled_from([b"time", b"subject", b"ext"]), st.binary(max_size=12)
    ),
    st.binary(max_size=20) | values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        ["", "application/json", "text/plain", "text/xml; charset=utf-8", "image/png", "x", "a/b;\x01"]
    ),
)
def test_anything_binary(more: dict[bytes, bytes], body: bytes, content_type: str) -> None:
    headers = {name.encode(): value.encode() for name, value in LEAST.items()} | more
    ce = [(b"ce-" + name.lower(), value) for name, value in headers.items()]

    wrong = taken_or_wrong(lambda: binary(ce, body, content_type))

    assert wrong is None or named(wrong)[0] is not None
