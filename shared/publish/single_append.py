"""The round of nearly every publish: its events go to one channel, in one append, by callbacks.

Publishes of an account that travel in one pipeline share the read of the versions, and those to one channel
its append. The versions are read ahead of the append: both come after the beginning of the publish, and a
change that was answered before that is noticed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from shared.publish.lots import LOT_COST, Line, Sendable, cost_of
from shared.publish.matching import Matched
from shared.publish.round import PublishStores, Round
from shared.publish.state import Publish
from shared.store.queues import APPEND_LOT, Appended

OnRound = Callable[[Any], None]


def round_of(
    stores: PublishStores, publish: Publish, matched: Matched, on_end: OnRound
) -> "Round | SingleAppend":
    """The first round of a publish."""
    is_plain = not (matched.sessions or matched.retained or matched.types or matched.wants_receipts)
    if len(matched.channels) == 1 and is_plain and publish.deadline is None:
        [(channel, indexes)] = matched.channels.items()
        version = matched.table.bindings_versions.get(channel)
        cost = cost_of(commands=1, copies=matched.copies, size_bytes=matched.size_bytes)
        if version is not None and cost <= LOT_COST and len(indexes) <= APPEND_LOT:
            return SingleAppend(stores, publish, matched, on_end, cost)
    return Round(stores, publish, matched, on_end)


class SingleAppend:
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

    def send_lot(self, on_lot: Callable[[Sendable], None]) -> None:
        """Sends all of it."""
        self.is_sent = True
        self._on_lot = on_lot
        publish, matched, stores = self.publish, self.matched, self._stores
        events: Sequence[Any] = publish.posted.events
        [(channel, indexes)] = matched.channels.items()
        if len(indexes) < len(events):
            events = [events[index] for index in indexes]
        try:
            self.versions = stores.routing.tables.shared_versions(publish.account.id)
            stores.queues.append_then(
                self._on_reply,
                channel,
                events,
                bindings_version=matched.table.bindings_versions[channel],
                traceparent="" if publish.span is None else publish.span.traceparent,
                size_bytes=matched.size_bytes,
            )
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

    def record(self) -> list[tuple[str, str]]:
        """Notes what the channel has taken. Returns it if it refused the version of its bindings, with the
        one that it has. Raises the error."""
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

    def is_current(self) -> bool:
        """Do the tables still have the versions that the events were matched with?"""
        return self.versions.of_tables == self.matched.versions
