"""Notifications as one NotificationMessage, for those who take many at once (section 5).

A webhook and a long poll get what waits merged: each section stands in it once. Merging must not change the
order that matters: an item goes to a section that is there already only if it passes no item about the life
of a device on its way, and if it is about the life of a device itself, no item of another section at all.
Nor do two sections about the lives of devices stand in one message: the Python SDK reads sections in an order
of its own, and would take a device that registered and went for one that went and registered.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.model.events import Notification
from shared.wire.pelion.items import LIVES_OF_DEVICES, PLAIN, item_of
from shared.wire.pelion.serialization import Serialization


@dataclass(frozen=True, slots=True)
class Message:
    """A NotificationMessage: its text, the place of its last notification, and how many it holds."""

    text: bytes
    last_entry_id: str
    count: int


def message(
    batch: Iterable[Notification], *, limit_bytes: int, limit_count: int, wanted: Serialization = PLAIN
) -> Message | None:
    """The front of the batch as one message, as much as the limits and its order allow; None of nothing.

    The first notification goes whatever its size.
    """
    sections: dict[bytes, list[bytes]] = {}
    size, count, last = len(b"{}"), 0, ""
    for notification in batch:
        section, text = item_of(notification, wanted)
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


def _keeps_order(sections: dict[bytes, list[bytes]], section: bytes) -> bool:
    """May an item go to its section, whatever others are there?"""
    if section in LIVES_OF_DEVICES and LIVES_OF_DEVICES & sections.keys() - {section}:
        return False
    if section not in sections or section == next(reversed(sections)):
        return True
    names = list(sections)
    passed = names[names.index(section) + 1 :]
    if section in LIVES_OF_DEVICES:
        return not passed
    return LIVES_OF_DEVICES.isdisjoint(passed)
