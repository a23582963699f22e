"""Notifications as items of a NotificationMessage: section and JSON of each (section 5)."""

import orjson

from shared.model import events
from shared.model.events import Notification
from shared.wire.pelion.serialization import Serialization, SerializationFlags
from shared.wire.times import moment_text

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
_NEVER_EXTENDED = (b"async-responses", _EVENTS)

# Whether a device is registered: the order of these among all other items matters.
REGISTRATION_SECTIONS = frozenset((b"registrations", b"reg-updates", *_NAMES_ONLY))


def item_of(notification: Notification, wanted: Serialization) -> tuple[bytes, bytes]:
    """The section and the JSON of one notification, in the channel's serialization."""
    section = _SECTIONS.get(notification.topic)
    if section is not None:
        flags = wanted.cfg
        as_object = section in _NAMES_ONLY and flags.deregistrations_as_object
        extends = flags.include_uid or flags.include_timestamp or flags.include_original_ep
        if as_object or (extends and section not in (*_NAMES_ONLY, *_NEVER_EXTENDED)):
            return section, _extended(notification, flags, as_object=as_object)
        return section, notification.data
    item = {
        "id": notification.event_id,
        "topic": notification.topic,
        "name": notification.name or None,
        "time": notification.time or moment_text(_queued_ms(notification.entry_id)),
        "data": orjson.Fragment(notification.data),
    }
    return _EVENTS, orjson.dumps(item)


def _extended(notification: Notification, flags: SerializationFlags, *, as_object: bool) -> bytes:
    data = orjson.loads(notification.data)
    item = {"ep": data} if as_object else data
    if flags.include_uid:
        item["uid"] = notification.event_id
    if flags.include_timestamp:
        item["timestamp"] = _queued_ms(notification.entry_id)
    if flags.include_original_ep:
        item.setdefault("original-ep", item["ep"])
    return orjson.dumps(item)


def _queued_ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
