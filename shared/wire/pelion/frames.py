"""Notifications as text frames: each a NotificationMessage with one section (section 5).

Real clients read only the first section of a message, and close on a message that is too long; so a frame
holds a consecutive run of one section, and is bounded in bytes and in number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
_AROUND = len(b'{"":[]}')


@dataclass(frozen=True, slots=True)
class Frame:
    """One text frame and what it holds: the place of its last notification, and how many there are."""

    text: bytes
    last_entry: str
    count: int


_PLAIN = Serialization()
_NAMES_ONLY = (b"de-registrations", b"registrations-expired")
_NEVER_ADDED_TO = (b"async-responses", _EVENTS)


def frames(
    batch: Iterable[Notification], *, limit_bytes: int, limit_count: int, wanted: Serialization = _PLAIN
) -> Iterator[Frame]:
    """The batch as frames, in order. A notification that alone is over `limit_bytes` goes alone."""
    section, items, size, last = b"", list[bytes](), 0, ""
    for notification in batch:
        belongs_to, item = _item(notification, wanted)
        full = size + len(item) + 1 > limit_bytes or len(items) >= limit_count
        if items and (belongs_to != section or full):
            yield _frame(section, items, last)
            items = []
        if not items:
            section, size = belongs_to, len(belongs_to) + _AROUND
        items.append(item)
        size += len(item) + 1
        last = notification.entry
    if items:
        yield _frame(section, items, last)


def _frame(section: bytes, items: list[bytes], last: str) -> Frame:
    return Frame(b'{"%b":[%b]}' % (section, b",".join(items)), last, len(items))


def _item(notification: Notification, wanted: Serialization) -> tuple[bytes, bytes]:
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
        "time": notification.time or _queued_at(notification.entry),
        "data": orjson.Fragment(notification.data),
    }
    return _EVENTS, orjson.dumps(item)


def _added_to(notification: Notification, wanted: Serialization, *, as_object: bool) -> bytes:
    data = orjson.loads(notification.data)
    item = {"ep": data} if as_object else data
    if wanted.uid:
        item["uid"] = notification.event_id
    if wanted.timestamp:
        item["timestamp"] = _queued_ms(notification.entry)
    if wanted.original_ep:
        item.setdefault("original-ep", item["ep"])
    return orjson.dumps(item)


def _queued_ms(entry: str) -> int:
    return int(entry.partition("-")[0])


def _queued_at(entry: str) -> str:
    at = datetime.fromtimestamp(_queued_ms(entry) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
