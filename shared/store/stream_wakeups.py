"""Live wakeups of streams: what an append added to a topic, published to whoever subscribes to its name.

A lost one costs latency, never an event: each names the offset before it, and a reader that is not there
reads.
On a cluster they are sharded (SSUBSCRIBE), in the slot of the stream.
"""

from collections.abc import Sequence
from typing import NamedTuple

from shared.model.streams import Mark, Retained
from shared.store import stream_names
from shared.store.streams import retained_at

live_name = stream_names.live

_INLINE = b"+"
# See stream_append.lua.
_ENTRY_PARTS = 6


class StreamWakeup(NamedTuple):
    """One append to a topic, or a purge, which adds nothing and has a new epoch.

    `before` is the offset of the event appended before these, also if that is gone; "0-0" when they are the
    first ever. `last` is that of the last of them. `entries` leaves out those for one channel or one
    customer; it is None when the wakeup does not carry them: then the topic must be read.
    """

    epoch: str
    before: str
    last: str
    entries: Sequence[Sequence[bytes]] | None

    def follows(self, mark: Mark) -> bool:
        """Whether a reader at this mark misses nothing before it."""
        return (self.epoch, self.before) == mark

    @property
    def mark(self) -> Mark:
        """Behind what was appended."""
        return Mark(self.epoch, self.last)

    def retained(self, topic: str) -> list[Retained] | None:
        """The events; None when the wakeup does not carry them."""
        return None if self.entries is None else [retained_at(topic, *entry) for entry in self.entries]


def parse(message: bytes) -> StreamWakeup:
    """Raises ValueError for what is no wakeup as we know them."""
    begin, before, last, *rest = message.split(b"\0")
    entries: Sequence[Sequence[bytes]] | None = None
    if begin.startswith(_INLINE):
        entries = [rest]
        if len(rest) != _ENTRY_PARTS:
            if len(rest) % _ENTRY_PARTS:
                raise ValueError("an event has another number of parts")
            entries = [rest[i : i + _ENTRY_PARTS] for i in range(0, len(rest), _ENTRY_PARTS)]
    return StreamWakeup(begin[1:].decode(), before.decode(), last.decode(), entries)
