"""Inline entries: a wakeup that carries what was appended, to spare its owner a read of the queue."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.model.events import Notification
from shared.store.queues import notification_at

_MARK = b"+"
# How many parts describe the channel, and how many each notification; see queue_append.lua.
_CHANNEL_PARTS = 5
_ENTRY_PARTS = 7


@dataclass(slots=True)
class InlineEntries:
    """What one append added to a channel, with the state that it found; or consecutive appends together.

    `owner` held the lease, perhaps of an older generation. `previous` is the entry appended before the first
    of these, pending or not; '' when they are the channel's first.
    """

    channel: str
    owner: str
    generation: str
    previous: str
    serialization: bytes
    notifications: list[Notification]


def parse_wakeups(messages: Iterable[bytes]) -> tuple[list[str], list[InlineEntries]]:
    """The words of these wakeups, and their inline entries, merged where appends follow each other."""
    words: list[str] = []
    appends: list[InlineEntries] = []
    for message in messages:
        append = parse_inline_entries(message)
        if append is None:
            words += message.decode().split()
        else:
            appends.append(append)
    return words, merge_consecutive(appends) if len(appends) > 1 else appends


def parse_inline_entries(payload: bytes) -> InlineEntries | None:
    """The inline entries of a wakeup; None when it consists of words."""
    if not payload.startswith(_MARK):
        return None
    parts = payload[1:].split(b"\0")
    channel, owner, generation, previous, serialization = parts[:_CHANNEL_PARTS]
    notifications = []
    for i in range(_CHANNEL_PARTS, len(parts), _ENTRY_PARTS):
        entry_id, event_id, topic, data, name, time, trail = parts[i : i + _ENTRY_PARTS]
        notifications.append(
            notification_at(entry_id, event_id, topic, data, name, time, *_rare(trail))
            if trail
            else Notification(
                entry_id.decode(), event_id.decode(), topic.decode(), data, name.decode(), time.decode()
            )
        )
    return InlineEntries(
        channel.decode(),
        owner.decode(),
        generation.decode(),
        previous.decode(),
        serialization,
        notifications,
    )


def _rare(part: bytes) -> tuple[bytes, bytes]:
    """The trail and the attributes of an entry: a trail has no brace, and attributes begin with one."""
    trail, brace, rest = part.partition(b"{")
    return trail, brace + rest


def merge_consecutive(appends: Sequence[InlineEntries]) -> list[InlineEntries]:
    """The same entries, with each run of appends that follow each other in one channel as one.

    The first append of a run takes the notifications of the others.
    """
    last: dict[str, InlineEntries] = {}
    complete: list[InlineEntries] = []
    for append in appends:
        before = last.get(append.channel)
        if before is None:
            last[append.channel] = append
        elif _follows(append, before):
            before.notifications += append.notifications
        else:
            complete.append(before)
            last[append.channel] = append
    return [*complete, *last.values()]


def _follows(append: InlineEntries, before: InlineEntries) -> bool:
    if append.previous != before.notifications[-1].entry_id:
        return False
    same = (before.owner, before.generation, before.serialization)
    return (append.owner, append.generation, append.serialization) == same
