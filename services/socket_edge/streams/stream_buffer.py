"""What waits for a client that reads streams: bytes and events that its kernel has not taken.

They stay in the transport's buffer, which refers to the bytes that all readers share.
"""

from typing import Protocol

from shared.runtime.settings import Settings


class Written(Protocol):
    """The transport of one client."""

    @property
    def written_bytes(self) -> int:
        """Of the whole connection."""

    def buffered_bytes(self) -> int:
        """What the kernel has not taken."""


class StreamBuffer:
    """The buffer of one client, as far as streams fill it."""

    __slots__ = ("_ends", "_events", "_settings", "_waiting", "_written")

    def __init__(self, settings: Settings, written: Written) -> None:
        self._settings = settings
        self._written = written
        # How many bytes waited behind the last delivery.
        self._waiting = 0
        # Where each delivery ends that may wait, and its number of events.
        # No deque: an empty one takes 760 bytes of each reader.
        self._ends: list[tuple[int, int]] = []
        self._events = 0

    def note(self, waiting: int, *, size_bytes: int, events: int) -> None:
        """A delivery was written, and so many bytes wait now."""
        self._waiting = waiting
        if waiting <= size_bytes and self._ends:
            # The kernel has taken all before it.
            self._ends.clear()
            self._events = 0
        if waiting:
            self._ends.append((self._written.written_bytes, events))
            self._events += events

    def is_full(self) -> bool:
        """Does more wait than may? What comes now is not counted: alone it may be large."""
        settings = self._settings
        if self._waiting <= settings.stream_buffer_bytes and self._events <= settings.stream_buffer_events:
            return False
        return (
            self.forget_sent() > settings.stream_buffer_bytes or self._events > settings.stream_buffer_events
        )

    def has_room(self) -> bool:
        """Is at least half of it free?"""
        settings = self._settings
        return (
            self.forget_sent() <= settings.stream_buffer_bytes // 2
            and self._events <= settings.stream_buffer_events // 2
        )

    def forget_sent(self) -> int:
        """Forgets the deliveries that the kernel has; how many bytes still wait."""
        waiting = self._written.buffered_bytes()
        if not waiting:
            self._ends.clear()
            self._events = 0
            return 0
        sent = self._written.written_bytes - waiting
        done = 0
        for end, count in self._ends:
            if end > sent:
                break
            done += 1
            self._events -= count
        del self._ends[:done]
        return waiting
