"""Notifications as CloudEvents 1.0 in JSON (docs/protocols/events.md, section 10).

`attributes` of an event or notification is a JSON object of what a CloudEvent says beside type, id, time and
data. Two members say how its data came, under names that no attribute can have: `data_base64` as base64,
`no_data` not at all.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any

import orjson
from msgspec import UNSET, Meta, UnsetType

from shared.model.events import Notification
from shared.model.streams import Retained
from shared.wire.messages import Message
from shared.wire.times import moment_ms, moment_text

MEDIA_TYPE = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
DATA_BASE64 = "data_base64"
NO_DATA = "no_data"
PUBLISHED_TIME = "notifytime"
"""The extension with an event's own time if that is no time of RFC 3339."""
OFFSET = "notifyoffset"
"""The extension with an event's place in the stream of its topic, for readers of that."""


Attributes = Annotated[
    dict[str, str | int | bool], Meta(description="Of a CloudEvent, beside type, id, time and data.")
]


def attributes_shown(attributes: bytes) -> dict[str, str | int | bool] | UnsetType:
    """The attributes for our own bodies, which have none for other events."""
    found: dict[str, str | int | bool] = orjson.loads(attributes) if attributes else {}
    return found or UNSET


def structured(notification: Notification, *, account_id: str, offset: str = "") -> bytes:
    """One event, its data as the publisher's bytes. `account_id` is the source of an event without one."""
    if not notification.attributes:
        event_id, topic, data, name, time = notification[1:6]
        trail, moment = notification.trail, notification.entry_id
        traceparent = "" if trail is None else trail.traceparent
        return _of_ours(account_id, event_id, topic, data, name, time, moment, traceparent, offset)
    given: dict[str, Any] = orjson.loads(notification.attributes)
    is_base64, has_none = given.pop(DATA_BASE64, False), given.pop(NO_DATA, False)
    attributes = _attributes(notification, given, account_id)
    if offset:
        attributes[OFFSET] = offset
    if has_none:
        return orjson.dumps(attributes)
    if not is_base64:
        # What JSON means without it. Base64 without it may be anything.
        attributes.setdefault("datacontenttype", "application/json")
    member = b"data_base64" if is_base64 else b"data"
    return b'%b,"%b":%b}' % (orjson.dumps(attributes)[:-1], member, notification.data)


def retained(found: Retained, *, account_id: str) -> bytes:
    """One event of a stream."""
    event, offset = found.event, found.offset
    if not event.attributes:
        return _of_ours(
            account_id, event.id, event.topic, event.data, event.name, event.time, offset, "", offset
        )
    notification = Notification(
        offset, event.id, event.topic, event.data, event.name, event.time, attributes=event.attributes
    )
    return structured(notification, account_id=account_id, offset=offset)


def _of_ours(
    account_id: str,
    event_id: str,
    topic: str,
    data: bytes,
    name: str,
    time: str,
    entry_id: str,
    traceparent: str,
    offset: str,
) -> bytes:
    """An event without attributes: what `_attributes` says, without a dict on the way."""
    more = ""
    if not time or not is_timestamp(time):
        if time:
            more = f',"{PUBLISHED_TIME}":{_json(time)}'
        time = moment_text(int(entry_id.partition("-")[0]))
    if name:
        more += f',"subject":{_json(name)}'
    if traceparent:
        more += f',"traceparent":{_json(traceparent)}'
    if offset:
        more += f',"{OFFSET}":"{offset}"'
    more = f'{_source_and_type(account_id, topic)},"time":"{time}"{more},"datacontenttype":"application/json"'
    begin = f'{{"specversion":"1.0","id":{_json(event_id)},{more},"data":'
    return b"%b%b}" % (begin.encode(), data)


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


# Publishers send the same topics again and again.
@lru_cache(maxsize=4096)
def _source_and_type(account_id: str, topic: str) -> str:
    return orjson.dumps({"source": f"/accounts/{account_id}", "type": topic})[1:-1].decode()


PLAIN = (
    b'{"specversion":"1.0","id":"%b",%b,"time":"%b.%03dZ","notifyoffset":"%b",'
    b'"datacontenttype":"application/json","data":%b}'
)
"""What `retained` makes of an event without attributes, name and time, whose id needs no escapes: of its id,
`plain_kind`, `plain_time`, the ms, offset and data."""


def plain_kind(account_id: str, topic: str) -> bytes:
    return _source_and_type(account_id, topic).encode()


# Many events are of one second.
@lru_cache(maxsize=1024)
def plain_time(second: int) -> bytes:
    return moment_text(second * 1000)[: -len(".000Z")].encode()


def batched(
    notifications: Iterable[Notification], *, account_id: str, limit_bytes: int, limit_count: int
) -> Message:
    """The front of the batch as a JSON array, as far as the limits allow. The batch must not be empty.

    The first notification is included whatever its size.
    """
    texts: list[bytes] = []
    size, last = len(b"]"), ""
    for notification in islice(notifications, max(limit_count, 1)):
        text = structured(notification, account_id=account_id)
        size += len(text) + 1
        if texts and size > limit_bytes:
            break
        texts.append(text)
        last = notification.entry_id
    assert texts, "a batch has at least one notification"
    return Message(b"[%b]" % b",".join(texts), last, len(texts))


def is_timestamp(text: str) -> bool:
    """Whether a CloudEvent may have this time: RFC 3339 to the letter, so without a blank before the hour."""
    return text[10:11] in ("T", "t") and moment_ms(text) is not None


def _attributes(notification: Notification, given: dict[str, Any], account_id: str) -> dict[str, Any]:
    found = {
        "specversion": "1.0",
        "id": notification.event_id,
        "source": f"/accounts/{account_id}",
        "type": notification.topic,
        "time": notification.time,
    }
    if not is_timestamp(notification.time):
        found["time"] = moment_text(int(notification.entry_id.partition("-")[0]))
        if notification.time:
            found[PUBLISHED_TIME] = notification.time
    if notification.name:
        found["subject"] = notification.name
    if notification.trail is not None and notification.trail.traceparent:
        found["traceparent"] = notification.trail.traceparent
    # The event's own win: also its traceparent, which names the trace that it began in.
    return found | given
