"""NotificationMessages (section 5): frames for sockets, merged messages for webhooks and long polls.

Existing clients read only the first section of a frame, and close on one that is too long. So a frame is a
run of consecutive items of one section, limited in bytes and number.

In a merged message each section appears once. Merging moves an item forward to its
section, and must not change the order of registrations among all else. So an item never passes an item of a
registration section, and an item of a registration section passes nothing. A message has one registration
section at most: the Python SDK reads sections in an order of its own, and would swap a registration and a
later de-registration.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from shared.model import events
from shared.model.events import Notification
from shared.wire.messages import Message
from shared.wire.pelion.serialization import DEFAULT, Serialization, SerializationFlags
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
_REGISTRATION_SECTIONS = frozenset((b"registrations", b"reg-updates", *_NAMES_ONLY))
_MEMBERS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENVELOPE_BYTES = len(b'{"":[]}')


def frames(
    batch: Iterable[Notification], *, limit_bytes: int, limit_count: int, wanted: Serialization = DEFAULT
) -> list[Message]:
    """The batch as frames, in order. A notification larger than `limit_bytes` gets a frame of its own."""
    made: list[Message] = []
    section, items, size, last = b"", list[bytes](), 0, ""
    for notification in batch:
        its_section, item = _item_of(notification, wanted)
        full = size + len(item) + 1 > limit_bytes or len(items) >= limit_count
        if items and (its_section != section or full):
            made.append(_frame(section, items, last))
            items = []
        if not items:
            section, size = its_section, len(its_section) + _ENVELOPE_BYTES
        items.append(item)
        size += len(item) + 1
        last = notification.entry_id
    if items:
        made.append(_frame(section, items, last))
    return made


def message(
    batch: Iterable[Notification], *, limit_bytes: int, limit_count: int, wanted: Serialization = DEFAULT
) -> Message | None:
    """The front of the batch as one message, as far as limits and order allow; None for an empty batch.

    The first notification is included whatever its size.
    """
    sections: dict[bytes, list[bytes]] = {}
    size, count, last = len(b"{}"), 0, ""
    for notification in batch:
        section, text = _item_of(notification, wanted)
        size += len(text) + 1
        if section not in sections:
            size += len(section) + len(b'"":[],')
        if count and (size > limit_bytes or count >= limit_count or not _keeps_order(sections, section)):
            break
        sections.setdefault(section, []).append(text)
        count, last = count + 1, notification.entry_id
    if not count:
        return None
    parts = (b'"%b":[%b]' % (section, b",".join(items)) for section, items in sections.items())
    return Message(b"{%b}" % b",".join(parts), last, count)


def _frame(section: bytes, items: list[bytes], last: str) -> Message:
    return Message(b'{"%b":[%b]}' % (section, b",".join(items)), last, len(items))


def _keeps_order(sections: dict[bytes, list[bytes]], section: bytes) -> bool:
    """Whether an item of this section can be added to these sections in order."""
    if section in _REGISTRATION_SECTIONS and _REGISTRATION_SECTIONS & sections.keys() - {section}:
        return False
    if section not in sections or section == next(reversed(sections)):
        return True
    names = list(sections)
    passed = names[names.index(section) + 1 :]
    if section in _REGISTRATION_SECTIONS:
        return not passed
    return _REGISTRATION_SECTIONS.isdisjoint(passed)


def _item_of(notification: Notification, wanted: Serialization) -> tuple[bytes, bytes]:
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
    # Parsed no deeper: whatever the members are, they stay as they were published.
    item: dict[str, Any] = (
        {"ep": msgspec.Raw(notification.data)} if as_object else _MEMBERS.decode(notification.data)
    )
    if flags.include_uid:
        item["uid"] = notification.event_id
    if flags.include_timestamp:
        item["timestamp"] = _queued_ms(notification.entry_id)
    if flags.include_original_ep:
        item.setdefault("original-ep", item["ep"])
    return msgspec.json.encode(item)


def _queued_ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
