"""The round of nearly every publish: its events go to one channel, or to one stream, in one append, by
callbacks.

Publishes of an account that travel in one pipeline share the read of the versions, and those to one channel
or stream its append. The versions are read ahead of the append: both come after the beginning of the
publish, and a change that was answered before that is noticed.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from shared.model.events import Event
from shared.publish.lots import LOT_COST, Line, Sendable, cost_of
from shared.publish.matching import Matched, as_retained, cost_of_retained
from shared.publish.round import Round
from shared.publish.state import Publish
from shared.publish.stores import PublishStores
from shared.store.queues import APPEND_LOT, Appended
from shared.store.streams import STREAM_LOT, Streams

OnRound = Callable[[Any], None]


def round_of(
    stores: PublishStores, publish: Publish, matched: Matched, on_end: OnRound
) -> "Round | SingleAppend":
    """The first round of a publish."""
    if not (matched.sessions or matched.types or matched.wants_receipts) and publish.deadline is None:
        channels = len(matched.channels)
        cost = cost_of(commands=channels, copies=matched.copies, size_bytes=matched.size_bytes)
        if not matched.retained and channels == 1:
            [(channel, indexes)] = matched.channels.items()
            version = matched.table.bindings_versions.get(channel)
            if version is not None and cost <= LOT_COST and len(indexes) <= APPEND_LOT:
                return ToChannel(stores, publish, matched, on_end, cost)
        elif not channels and len(matched.streams) == 1 and matched.retained <= STREAM_LOT:
            cost += cost_of_retained(matched)
            if cost <= LOT_COST and stores.streams is not None:
                return ToStream(stores, publish, matched, on_end, cost)
    return Round(stores, publish, matched, on_end)


class SingleAppend(ABC):
    """Sent by `Lots`. Calls `on_end` when its reply and the versions are there."""

    __slots__ = (
        *("_on_lot", "_reply", "_stores", "cost", "error", "is_sent", "line", "lot_cost", "matched"),
        *("on_end", "publish", "versions"),
    )

    def __init__(
        self, stores: PublishStores, publish: Publish, matched: Matched, on_end: OnRound, cost: int
    ) -> None:
        self.publish, self.matched = publish, matched
        self.line: Line = publish.account
        self._stores, self.on_end = stores, on_end
        self.cost = self.lot_cost = cost
        self.is_sent = False
        self.error: Exception | None = None

    @abstractmethod
    def _append(self) -> None:
        """Sends the append. `_on_reply` gets its reply."""

    @abstractmethod
    def record(self) -> list[tuple[str, str]]:
        """Notes what has taken the events. Raises the error.

        Returns the channel if it refused the version of its bindings, with the one that it has.
        """

    def send_lot(self, on_lot: Callable[[Sendable], None]) -> None:
        """Sends all of it."""
        self.is_sent = True
        self._on_lot = on_lot
        try:
            self.versions = self._stores.routing.tables.shared_versions(self.publish.account.id)
            self._append()
        except Exception as error:
            self.error = error
            asyncio.get_running_loop().call_soon(on_lot, self)

    def _on_reply(self, reply: Any) -> None:
        self._reply = reply
        if self.versions.has_reply and self.versions.every.has_reply:
            self._finish()
        else:
            self.versions.when_read(self._finish)

    def _finish(self) -> None:
        reply = self._reply
        self.error = reply if isinstance(reply, Exception) else self.versions.error
        self._on_lot(self)

    def fail(self, error: Exception) -> None:
        self.error, self.is_sent = error, True
        self.on_end(self)

    def is_current(self) -> bool:
        """Do the tables still have the versions that the events were matched with?"""
        return self.versions.of_tables == self.matched.versions

    def _events(self, indexes: Sequence[int]) -> Sequence[Event]:
        events = self.publish.posted.events
        return events if len(indexes) == len(events) else [events[index] for index in indexes]


class ToChannel(SingleAppend):
    """All go to one channel."""

    __slots__ = ()

    def _append(self) -> None:
        publish, matched = self.publish, self.matched
        [(channel, indexes)] = matched.channels.items()
        self._stores.queues.append_then(
            self._on_reply,
            channel,
            self._events(indexes),
            bindings_version=matched.table.bindings_versions[channel],
            traceparent="" if publish.span is None else publish.span.traceparent,
            size_bytes=matched.size_bytes,
        )

    def record(self) -> list[tuple[str, str]]:
        if self.error is not None:
            raise self.error
        appended = self._stores.queues.end_append(self._reply)
        [(channel, indexes)] = self.matched.channels.items()
        if appended is Appended.STALE:
            return [(channel, self._reply[1].decode())]
        if appended is Appended.QUEUED:
            taken = self.publish.taken
            taken.channels[channel] = indexes
            for index in indexes:
                taken.counts[index] += 1
        return []


class ToStream(SingleAppend):
    """All go to the stream of one topic, and to no channel. It refuses nothing."""

    __slots__ = ()

    def _append(self) -> None:
        [(topic, (keep, indexes))] = self.matched.streams.items()
        events = self._events(indexes)
        for event in events:
            if event.to is not None:
                table = self.matched.table
                events = [as_retained(each, table) for each in events]
                break
        streams = self._stores.streams
        assert streams is not None
        streams.append_then(
            self._on_reply,
            self.publish.account.id,
            topic,
            events,
            keep=keep,
            size_bytes=self.matched.size_bytes,
        )

    def record(self) -> list[tuple[str, str]]:
        if self.error is not None:
            raise self.error
        [(_, indexes)] = self.matched.streams.values()
        offsets = Streams.end_append(self._reply)
        # Without a deadline it is never too late.
        assert offsets is not None
        self.publish.taken.offsets.update(zip(indexes, offsets, strict=True))
        return []
