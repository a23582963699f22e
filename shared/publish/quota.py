"""What one publish may cost."""

from collections.abc import Sequence

from shared.model.errors import TooLarge
from shared.model.events import Event
from shared.publish.matching import Matched

# Notifications of one request. Redis must hold them all before the response.
MAX_COPIES = 100_000
MAX_COPIES_BYTES = 64 * 1024 * 1024


# Beyond these a publish reads the tables' versions first: a refused one must not have begun.
_WIDE_COPIES = 1000
_WIDE_BYTES = 1024 * 1024


def check_quota(events: Sequence[Event], matched: Matched) -> bool:
    """Checks the notifications that a publish makes: events times channels. Raises TooLarge.

    Returns whether they are few: a table that is a little behind could not hide that they are too many.
    """
    copies = size = 0
    for targets in (matched.channels, matched.sessions):
        for indexes in targets.values():
            copies += len(indexes)
            for index in indexes:
                size += len(events[index].data)
    if copies > MAX_COPIES or size > MAX_COPIES_BYTES:
        limit = f"{MAX_COPIES} notifications or {MAX_COPIES_BYTES // 1024 // 1024} MiB"
        raise TooLarge(
            f"events times channels: {copies} notifications, {size} bytes; the limit of a request is {limit}"
        )
    return copies <= _WIDE_COPIES and size <= _WIDE_BYTES
