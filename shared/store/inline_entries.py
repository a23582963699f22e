"""Inline entries: a wakeup that carries what was appended, to spare its owner a read of the queue."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from shared.model.events import Notification
from shared.store.queues import notification_at

_MARK = b"+"
# How many parts describe the channel, and how many each notification; see queue_append.lua.
_CHANNEL_PARTS = 5
_ENTRY_PARTS = 7


@dataclass(frozen=True, slots=True)
class InlineEntries:
    """What one append added to a channel, with the state that it found.

    `owner` held the lease, perhaps of an older generation. `previous` is the entry appended before the first
    of these, pending or not; '' when they are the channel's first.
    """

    channel: str
    owner: str
    generation: str
    previous: str
    serialization: bytes
    notifications: list[Notification]


def parse_inline_entries(payload: bytes) -> InlineEntries | None:
    """The inline entries of a wakeup; None when it is a list of items."""
    if not payload.startswith(_MARK):
        return None
    lengths, _, text = payload.partition(b"\n")
    parts, start = list[bytes](), 0
    for length in map(int, lengths[1:].split()):
        parts.append(text[start : start + length])
        start += length
    channel, owner, generation, previous, serialization = parts[:_CHANNEL_PARTS]
    entries = range(_CHANNEL_PARTS, len(parts), _ENTRY_PARTS)
    return InlineEntries(
        channel.decode(),
        owner.decode(),
        generation.decode(),
        previous.decode(),
        serialization,
        [notification_at(*parts[i : i + _ENTRY_PARTS]) for i in entries],
    )


def merge_consecutive(appends: Iterable[InlineEntries]) -> list[InlineEntries]:
    """The same entries, with each run of appends that follow each other in one channel as one."""
    last: dict[str, InlineEntries] = {}
    complete: list[InlineEntries] = []
    for append in appends:
        before = last.get(append.channel)
        if before is None:
            last[append.channel] = append
        elif _follows(append, before):
            notifications = [*before.notifications, *append.notifications]
            last[append.channel] = replace(before, notifications=notifications)
        else:
            complete.append(before)
            last[append.channel] = append
    return [*complete, *last.values()]


def _follows(append: InlineEntries, before: InlineEntries) -> bool:
    if append.previous != before.notifications[-1].entry_id:
        return False
    same = (before.owner, before.generation, before.serialization)
    return (append.owner, append.generation, append.serialization) == same
