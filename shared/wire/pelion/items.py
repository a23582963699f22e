"""Notifications as items of a NotificationMessage: the section of each, and its text (section 5)."""

from datetime import UTC, datetime

import orjson

from shared.model import events
from shared.model.events import Notification
from shared.wire.pelion.serialization import Serialization

_SECTIONS = {
    events.DEVICE_NOTIFICATIONS: b"notifications",
    events.DEVICE_REGISTRATIONS: b"registrations",
    events.DEVICE_REG_UPDATES: b"reg-updates",
    events.DEVICE_DE_REGISTRATIONS: b"de-registrations",
    events.DEVICE_REGISTRATIONS_EXPIRED: b"registrations-expired",
    events.DEVICE_ASYNC_RESPONSES: b"async-responses",
}
_EVENTS = b"events"
_NAMES_ONLY = (b"de-registrations", b"registrations-expired")
_NEVER_ADDED_TO = (b"async-responses", _EVENTS)

PLAIN = Serialization()
# What tells how devices come and go: its place among all else matters.
LIVES_OF_DEVICES = frozenset((b"registrations", b"reg-updates", *_NAMES_ONLY))


def item_of(notification: Notification, wanted: Serialization) -> tuple[bytes, bytes]:
    """The section and the text of one notification, encoded as the channel wants it."""
    section = _SECTIONS.get(notification.topic)
    if section is not None:
        as_object = section in _NAMES_ONLY and wanted.deregistrations_as_object
        if as_object or (wanted.adds_to_items and section not in (*_NAMES_ONLY, *_NEVER_ADDED_TO)):
            return section, _added_to(notification, wanted, as_object=as_object)
        return section, notification.data
    item = {
        "id": notification.event_id,
        "topic": notification.topic,
        "name": notification.name or None,
        "time": notification.time or _queued_at(notification.entry_id),
        "data": orjson.Fragment(notification.data),
    }
    return _EVENTS, orjson.dumps(item)


def _added_to(notification: Notification, wanted: Serialization, *, as_object: bool) -> bytes:
    data = orjson.loads(notification.data)
    item = {"ep": data} if as_object else data
    if wanted.uid:
        item["uid"] = notification.event_id
    if wanted.timestamp:
        item["timestamp"] = _queued_ms(notification.entry_id)
    if wanted.original_ep:
        item.setdefault("original-ep", item["ep"])
    return orjson.dumps(item)


def _queued_ms(entry: str) -> int:
    return int(entry.partition("-")[0])


def _queued_at(entry: str) -> str:
    at = datetime.fromtimestamp(_queued_ms(entry) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
