"""Notifications as CloudEvents: structured and batched, against the schema and the official SDK."""

import json
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from hypothesis import given
from hypothesis import strategies as st

from shared.model.events import Notification, Trail
from shared.wire.cloudevents import batched, is_timestamp, structured
from tests.wire.cloudevents import valid

FAR = 1_000_000
QUEUED = "2026-11-28T00:00:00.000Z"
ENTRY = "1795824000000-0"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PLAIN = Notification(ENTRY, "e1", "orders.paid", b'{"order": 17}')
AS_PLAIN = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/accounts/a1",
    "type": "orders.paid",
    "time": QUEUED,
    "datacontenttype": "application/json",
    "data": {"order": 17},
}


def with_attributes(data: bytes = b"1", **attributes: Any) -> Notification:
    return PLAIN._replace(data=data, attributes=orjson.dumps(attributes))


@pytest.mark.parametrize(
    ("notification", "expected"),
    [
        pytest.param(PLAIN, {}, id="plain"),
        pytest.param(PLAIN._replace(name="invoice 17"), {"subject": "invoice 17"}, id="name-is-subject"),
        pytest.param(
            with_attributes(subject="s", source="/shop")._replace(name="n"),
            {"subject": "s", "source": "/shop", "data": 1},
            id="its-own-subject-and-source",
        ),
        pytest.param(
            PLAIN._replace(time="2026-01-31T12:00:00.5+01:00"),
            {"time": "2026-01-31T12:00:00.5+01:00"},
            id="its-time-to-the-letter",
        ),
        pytest.param(
            PLAIN._replace(time="Monday"),
            {"time": QUEUED, "notifytime": "Monday"},
            id="another-time",
        ),
        pytest.param(
            PLAIN._replace(time="2026-01-31 12:00:00Z"),
            {"notifytime": "2026-01-31 12:00:00Z"},
            id="a-blank-is-not-rfc-3339",
        ),
        pytest.param(PLAIN._replace(trail=Trail(traceparent=TRACE)), {"traceparent": TRACE}, id="traced"),
        pytest.param(PLAIN._replace(trail=Trail(receipt=True)), {}, id="with-a-receipt-only"),
        pytest.param(
            with_attributes(traceparent="00-1", region="eu", retries=3, urgent=True)._replace(
                trail=Trail(traceparent=TRACE)
            ),
            {"traceparent": "00-1", "region": "eu", "retries": 3, "urgent": True, "data": 1},
            id="its-own-trace-and-extensions",
        ),
        pytest.param(
            with_attributes(b'"<a/>"', datacontenttype="application/xml", dataschema="https://x.example/s"),
            {"datacontenttype": "application/xml", "dataschema": "https://x.example/s", "data": "<a/>"},
            id="text-of-its-own-type",
        ),
        pytest.param(
            with_attributes(b'"AAE="', datacontenttype="image/png", data_base64=True),
            {"datacontenttype": "image/png", "data_base64": "AAE=", "data": ...},
            id="base64",
        ),
        pytest.param(
            with_attributes(b'"AAE="', data_base64=True),
            {"datacontenttype": ..., "data_base64": "AAE=", "data": ...},
            id="base64-of-unknown-type",
        ),
        pytest.param(
            with_attributes(b"null", no_data=True), {"datacontenttype": ..., "data": ...}, id="without-data"
        ),
        pytest.param(PLAIN._replace(data=b"null"), {"data": None}, id="null"),
        pytest.param(
            Notification(ENTRY, "e1", "device.notifications", b'{"ep":"d","path":"/3"}'),
            {"type": "device.notifications", "data": {"ep": "d", "path": "/3"}},
            id="of-a-device-the-item",
        ),
        pytest.param(
            Notification(ENTRY, "e1", "device.de-registrations", b'"d"'),
            {"type": "device.de-registrations", "data": "d"},
            id="of-a-device-its-name",
        ),
    ],
)
def test_structured(notification: Notification, expected: dict[str, Any]) -> None:
    """`...` is a member that is missing."""
    found = valid(structured(notification, account_id="a1"))

    wanted = {name: value for name, value in (AS_PLAIN | expected).items() if value is not ...}
    assert found == wanted


def test_data_keeps_its_bytes() -> None:
    data = b'{"total": 1.0,  "n": 123456789012345678901234567890, "a":1, "a":2}'

    assert structured(PLAIN._replace(data=data), account_id="a1").endswith(b'"data":' + data + b"}")


def test_official_sdk_reads_it() -> None:
    text = structured(with_attributes(b'{"a": 1}', source="/shop", region="eu"), account_id="a1")

    event = from_structured_event(HTTPMessage({"content-type": "application/cloudevents+json"}, text))

    assert (event.get_id(), event.get_source(), event.get_type()) == ("e1", "/shop", "orders.paid")
    assert (event.get_extension("region"), event.get_data()) == ("eu", {"a": 1})


def batch_of(count: int, data: bytes = b"1") -> list[Notification]:
    return [PLAIN._replace(entry_id=f"{1000 + n}-0", event_id=f"e{n}", data=data) for n in range(count)]


ONE = len(structured(batch_of(1)[0], account_id="a1"))


@pytest.mark.parametrize(
    ("limit_bytes", "limit_count", "count"),
    [
        pytest.param(FAR, FAR, 5, id="all"),
        pytest.param(FAR, 3, 3, id="by-number"),
        pytest.param(FAR, 0, 1, id="at-least-one-by-number"),
        pytest.param(1, FAR, 1, id="at-least-one-by-size"),
        pytest.param(2 * ONE + 3, FAR, 2, id="by-size"),
        pytest.param(2 * ONE + 2, FAR, 1, id="by-one-byte-less"),
    ],
)
def test_batched(limit_bytes: int, limit_count: int, count: int) -> None:
    made = batched(batch_of(5), account_id="a1", limit_bytes=limit_bytes, limit_count=limit_count)

    assert [valid(orjson.dumps(each))["id"] for each in json.loads(made.text)] == [
        f"e{n}" for n in range(count)
    ]
    assert (made.count, made.last_entry_id) == (count, f"{1000 + count - 1}-0")
    assert len(made.text) <= limit_bytes or count == 1


@given(
    st.lists(st.binary(max_size=40).map(lambda b: orjson.dumps(b.hex())), min_size=1), st.integers(1, 2000)
)
def test_a_batch_keeps_to_its_bytes(data: list[bytes], limit_bytes: int) -> None:
    batch = [each._replace(data=one) for each, one in zip(batch_of(len(data)), data, strict=True)]

    made = batched(batch, account_id="a1", limit_bytes=limit_bytes, limit_count=FAR)

    assert made.count == 1 or len(made.text) <= limit_bytes
    assert len(json.loads(made.text)) == made.count


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2026-01-31T12:00:00Z", True),
        ("2026-01-31t12:00:00z", True),
        ("2026-01-31T12:00:00.123456789-08:00", True),
        ("2026-01-31 12:00:00Z", False),
        ("2026-01-31T12:00:00", False),
        ("2026-13-31T12:00:00Z", False),
        ("2026-01-31", False),
        ("", False),
    ],
)
def test_timestamps(text: str, is_one: bool) -> None:
    assert is_timestamp(text) is is_one
