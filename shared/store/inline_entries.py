"""Wakeups that carry what was queued: a holder that has sent its predecessor passes it on without a look."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from shared.model.events import Notification
from shared.store.queues import notification_at

_MARK = b"+"
_HEAD = 5
_EACH = 7


@dataclass(frozen=True, slots=True)
class InlineEntries:
    """What was queued for a channel in one step, as `queue_append.lua` found things in that step.

    `owner` held the channel, which may have been made anew since it claimed it. `previous` is the entry that
    the first of these stands behind, '' when the queue was empty.
    """

    channel: str
    owner: str
    generation: str
    previous: str
    serialization: bytes
    notifications: list[Notification]


def parse_inline_entries(message: bytes) -> InlineEntries | None:
    """What a wakeup carries; None when it is one of words."""
    if not message.startswith(_MARK):
        return None
    head, _, rest = message.partition(b"\n")
    parts, start = list[bytes](), 0
    for length in map(int, head[1:].split()):
        parts.append(rest[start : start + length])
        start += length
    channel, owner, generation, previous, serialization = parts[:_HEAD]
    notifications = [notification_at(*parts[i : i + _EACH]) for i in range(_HEAD, len(parts), _EACH)]
    return InlineEntries(
        channel.decode(),
        owner.decode(),
        generation.decode(),
        previous.decode(),
        serialization,
        notifications,
    )


def merged(several: Iterable[InlineEntries]) -> list[InlineEntries]:
    """The same, but what was queued for a channel one behind the other as one."""
    open_ones: dict[str, InlineEntries] = {}
    closed: list[InlineEntries] = []
    for carried in several:
        before = open_ones.get(carried.channel)
        if before is None:
            open_ones[carried.channel] = carried
        elif _follows(carried, before):
            notifications = [*before.notifications, *carried.notifications]
            open_ones[carried.channel] = replace(before, notifications=notifications)
        else:
            closed.append(before)
            open_ones[carried.channel] = carried
    return [*closed, *open_ones.values()]


def _follows(carried: InlineEntries, before: InlineEntries) -> bool:
    if carried.previous != before.notifications[-1].entry_id:
        return False
    same = (before.owner, before.generation, before.serialization)
    return (carried.owner, carried.generation, carried.serialization) == same
