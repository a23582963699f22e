"""CloudEvents in and out again: by the official SDK, and anything at all."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import Invalid
from shared.model.events import Event, Notification
from shared.wire.cloudevents import MEDIA_TYPE, structured
from shared.wire.events import Form
from shared.wire.posted_cloudevents import cloudevents_in
from tests.wire.cloudevents import valid
from tests.wire.cloudevents.posting import LEAST, binary, kept, named

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
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
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
