"""Live wakeups of streams: what an append added to a topic, published to whoever subscribes to its name.

A lost one costs latency, never an event: each names the offset before it, and a reader that is not there
reads.
On a cluster they are sharded (SSUBSCRIBE), in the slot of the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.model.streams import Mark, Retained
from shared.store import stream_names
from shared.store.streams import retained_at

live_name = stream_names.live

_INLINE = b"+"
# How many parts describe the append; see stream_append.lua.
_PARTS = 3
_ENTRY_PARTS = 6


@dataclass(frozen=True, slots=True)
class StreamWakeup:
    """One append to a topic, or a purge, which adds nothing and has a new epoch.

    `before` is the offset of the event appended before these, also if that is gone; "0-0" when they are the
    first ever. `last` is that of the last of them. `entries` leaves out those for one channel or one
    customer; it is None when the wakeup does not carry them: then the topic must be read.
    """

    epoch: str
    before: str
    last: str
    entries: Sequence[tuple[bytes, ...]] | None

    def follows(self, mark: Mark) -> bool:
        """Whether a reader at this mark misses nothing before it."""
        return self.before == mark.offset and self.epoch == mark.epoch

    @property
    def mark(self) -> Mark:
        """Behind what was appended."""
        return Mark(self.epoch, self.last)

    def retained(self, topic: str) -> list[Retained] | None:
        """The events; None when the wakeup does not carry them."""
        return None if self.entries is None else [retained_at(topic, *entry) for entry in self.entries]


def parse(message: bytes) -> StreamWakeup:
    parts = message.split(b"\0")
    kind, epoch = parts[0][:1], parts[0][1:]
    entries = None
    if kind == _INLINE:
        entries = [tuple(parts[i : i + _ENTRY_PARTS]) for i in range(_PARTS, len(parts), _ENTRY_PARTS)]
    return StreamWakeup(epoch.decode(), parts[1].decode(), parts[2].decode(), entries)
