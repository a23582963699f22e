"""Notifications as text frames: each a NotificationMessage with one section (section 5).

Real clients read only the first section of a message, and close on a message that is too long; so a frame
holds a consecutive run of one section, and is bounded in bytes and in number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared.model.events import Notification
from shared.wire.pelion.items import PLAIN, item_of
from shared.wire.pelion.serialization import Serialization

_AROUND = len(b'{"":[]}')


@dataclass(frozen=True, slots=True)
class Frame:
    """One text frame and what it holds: the place of its last notification, and how many there are."""

    text: bytes
    last_entry_id: str
    count: int


def frames(
    batch: Iterable[Notification], *, limit_bytes: int, limit_count: int, wanted: Serialization = PLAIN
) -> Iterator[Frame]:
    """The batch as frames, in order. A notification that alone is over `limit_bytes` goes alone."""
    section, items, size, last = b"", list[bytes](), 0, ""
    for notification in batch:
        belongs_to, item = item_of(notification, wanted)
        full = size + len(item) + 1 > limit_bytes or len(items) >= limit_count
        if items and (belongs_to != section or full):
            yield _frame(section, items, last)
            items = []
        if not items:
            section, size = belongs_to, len(belongs_to) + _AROUND
        items.append(item)
        size += len(item) + 1
        last = notification.entry_id
    if items:
        yield _frame(section, items, last)


def _frame(section: bytes, items: list[bytes], last: str) -> Frame:
    return Frame(b'{"%b":[%b]}' % (section, b",".join(items)), last, len(items))
