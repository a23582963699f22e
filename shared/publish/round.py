"""One round trip of a publish: its appends, and the versions of its routing tables."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.model.events import Event
from shared.publish.matching import Matched
from shared.publish.request import Posted
from shared.store.keyspace import EVERY
from shared.store.queues import Appended, Queues
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.store.sessions import Sessions


@dataclass(frozen=True, slots=True)
class PublishStores:
    """The stores that a publish writes to."""

    routing: Routing
    queues: Queues
    sessions: Sessions
    receipts: Receipts


@dataclass(slots=True)
class Taken:
    """What has taken events so far, with the indexes of the events.

    A channel takes all of its events or none. A session takes the first ones that its queue has room for: for
    each index that it was offered, whether it took it.
    """

    channels: dict[str, Sequence[int]] = field(default_factory=dict)
    sessions: dict[str, dict[int, bool]] = field(default_factory=dict)

    def counts(self, matched: Matched, count: int) -> list[int]:
        """For each of `count` events the number of channels and sessions that have taken it.

        A session counts only if it matches now: what it took and no longer wants, its edge drops.
        """
        counts = [0] * count
        for indexes in self.channels.values():
            for index in indexes:
                counts[index] += 1
        for session, indexes in matched.sessions.items():
            offered = self.sessions[session]
            for index in indexes:
                counts[index] += offered[index]
        return counts


class Round:
    """Sends at once, and calls `on_end` when every reply is there."""

    __slots__ = (
        *("_channels", "_named", "_next", "_on_end", "_replies", "_sessions", "_stores", "_taken"),
        "matched",
    )

    def __init__(
        self,
        stores: PublishStores,
        posted: Posted,
        matched: Matched,
        taken: Taken,
        *,
        traceparent: str,
        now_ms: int,
        on_end: Callable[["Round"], None],
    ) -> None:
        """Appends to what has not taken its events yet. `now_ms` is the time of publishing, for receipts."""
        self.matched = matched
        self._stores, self._taken, self._on_end = stores, taken, on_end
        account_id, events = posted.account_id, posted.events
        versions = matched.table.bindings_versions
        # A table may name a channel whose key is gone, until the reaper drops it.
        self._channels = [
            channel for channel in matched.channels if channel not in taken.channels and channel in versions
        ]
        self._named = [versions[channel] for channel in self._channels]
        self._sessions = {
            session: [index for index in indexes if index not in taken.sessions.get(session, ())]
            for session, indexes in matched.sessions.items()
        }
        self._replies: list[asyncio.Future[Any]] = [
            stores.queues.begin_append(
                channel,
                [events[index] for index in matched.channels[channel]],
                bindings_version=version,
                traceparent=traceparent,
            )
            for channel, version in zip(self._channels, self._named, strict=True)
        ]
        for session, indexes in self._sessions.items():
            chosen = [events[index] for index in indexes]
            self._replies.append(stores.sessions.begin_append(session, account_id, chosen))
        self._replies.append(stores.routing.version(account_id))
        self._replies.append(stores.routing.version(EVERY))
        if matched.types:
            self._replies += stores.routing.learn_device_types(account_id, matched.types)
        if any(event.receipt for event in events):
            self._replies += _open_receipts(stores.receipts, account_id, events, matched, now_ms=now_ms)
        # Replies mostly come in order: to wait for the last one first costs one callback instead of many.
        self._next = len(self._replies)
        self._wait()

    def _wait(self, _: object = None) -> None:
        while self._next:
            reply = self._replies[self._next - 1]
            if not reply.done():
                reply.add_done_callback(self._wait)
                return
            self._next -= 1
        self._on_end(self)

    def record(self) -> list[tuple[str, str]]:
        """Notes what has taken its events. Raises StoreUnavailable.

        Returns the channels that refused the version of their bindings, each with the one that it has.
        """
        refused: list[tuple[str, str]] = []
        replies = iter(self._replies)
        for channel in self._channels:
            reply = next(replies).result()
            appended = self._stores.queues.end_append(reply)
            if appended is Appended.QUEUED:
                self._taken.channels[channel] = self.matched.channels[channel]
            elif appended is Appended.STALE:
                refused.append((channel, reply[1].decode()))
        for session, indexes in self._sessions.items():
            count = self._stores.sessions.end_append(next(replies).result(), count=len(indexes))
            offered = self._taken.sessions.setdefault(session, {})
            offered |= {index: place < count for place, index in enumerate(indexes)}
        for other in replies:
            other.result()
        return refused

    def confirm(self, refused: Collection[str]) -> None:
        """Tells the table which channels have the version that this round named: those that did not refuse.

        A channel that took its events in an earlier round is not among them: the table has moved on since.
        """
        for channel, version in zip(self._channels, self._named, strict=True):
            if channel not in refused:
                self.matched.table.confirm(channel, bindings_version=version)

    @property
    def is_current(self) -> bool:
        """Do the tables still have the versions that the events were matched with?"""
        first = len(self._channels) + len(self._sessions)
        return self.matched.versions == tuple(
            (reply.result() or b"").decode() for reply in self._replies[first : first + 2]
        )


def _open_receipts(
    receipts: Receipts, account_id: str, events: Sequence[Event], matched: Matched, *, now_ms: int
) -> list[asyncio.Future[Any]]:
    """Opens the receipts that were asked for, before the channels can write to them."""
    channels_of: dict[int, list[str]] = {index: [] for index, event in enumerate(events) if event.receipt}
    for channel, indexes in matched.channels.items():
        for index in indexes:
            if index in channels_of:
                channels_of[index].append(channel)
    return [
        receipts.open(account_id, events[index], channels=channels, now_ms=now_ms)
        for index, channels in channels_of.items()
    ]
