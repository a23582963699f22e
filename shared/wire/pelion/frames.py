"""Notifications as text frames: each a NotificationMessage with one section (section 5).

Existing clients read only the first section of a message, and close on a message that is too long. So a frame
is a run of consecutive items of one section, limited in bytes and number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared.model.events import Notification
from shared.wire.pelion.items import item_of
from shared.wire.pelion.serialization import DEFAULT, Serialization

_ENVELOPE_BYTES = len(b'{"":[]}')


@dataclass(frozen=True, slots=True)
class Frame:
    """One text frame, the entry id of its last notification, and the number of notifications."""

    text: bytes
    last_entry_id: str
    count: int


def frames(
    batch: Iterable[Notification], *, limit_bytes: int, limit_count: int, wanted: Serialization = DEFAULT
) -> Iterator[Frame]:
    """The batch as frames, in order. A notification larger than `limit_bytes` gets a frame of its own."""
    section, items, size, last = b"", list[bytes](), 0, ""
    for notification in batch:
        its_section, item = item_of(notification, wanted)
        full = size + len(item) + 1 > limit_bytes or len(items) >= limit_count
        if items and (its_section != section or full):
            yield _frame(section, items, last)
            items = []
        if not items:
            section, size = its_section, len(its_section) + _ENVELOPE_BYTES
        items.append(item)
        size += len(item) + 1
        last = notification.entry_id
    if items:
        yield _frame(section, items, last)


def _frame(section: bytes, items: list[bytes], last: str) -> Frame:
    return Frame(b'{"%b":[%b]}' % (section, b",".join(items)), last, len(items))
