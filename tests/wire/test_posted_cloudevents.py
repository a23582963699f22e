"""CloudEvents as they are posted: each mode, each error."""

from typing import Any

import orjson
import pytest

from shared.model.errors import TooLarge
from shared.model.events import Event
from shared.wire.cloudevents import BATCH_MEDIA_TYPE, MEDIA_TYPE
from shared.wire.events import MAX_EVENT_BYTES, MAX_EVENTS, Form, form_of
from shared.wire.posted_cloudevents import cloudevents_in
from tests.wire.cloudevents.posting import KEPT, LEAST, binary, headers_of, kept, posted, refusal


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
        ({"data": 1, "notifyoffset": "1795907463007-0"}, b"1", {}),
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
     "is unknown: of the names with notify there are notifyto, notifycustomer, notifyreceipt, notifytime,"
     " notifyoffset"),
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
