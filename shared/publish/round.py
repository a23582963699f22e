"""One round trip of a publish: its appends, and the versions of its routing tables."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from shared.model.events import Event
from shared.publish.matching import Matched
from shared.publish.rates import Rates
from shared.publish.state import Publish
from shared.store.queues import Appended, Queues
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.store.sessions import Sessions


@dataclass(frozen=True, slots=True)
class PublishStores:
    """The stores that a publish uses. `rates` admits it; None: no rate is limited."""

    routing: Routing
    queues: Queues
    sessions: Sessions
    receipts: Receipts
    rates: Rates | None = None


class Round:
    """Sends at once, and calls `on_end` when every reply is there."""

    __slots__ = (
        *("_channels", "_left", "_on_end", "_replies", "_sessions", "_stores", "_versions"),
        *("matched", "publish"),
    )

    def __init__(
        self, stores: PublishStores, publish: Publish, matched: Matched, on_end: Callable[["Round"], None]
    ) -> None:
        """Appends to what has not taken its events yet."""
        self.publish, self.matched = publish, matched
        self._stores, self._on_end = stores, on_end
        posted, taken = publish.posted, publish.taken
        events, versions = posted.events, matched.table.bindings_versions
        traceparent = "" if publish.span is None else publish.span.traceparent
        # Each channel with the version of its bindings that its append names.
        self._channels: dict[str, str] = {}
        self._sessions: dict[str, list[int]] = {}
        self._replies: list[asyncio.Future[Any]] = []
        for channel, indexes in matched.channels.items():
            version = versions.get(channel)
            # A table may name a channel whose key is gone, until the reaper drops it.
            if version is not None and channel not in taken.channels:
                self._channels[channel] = version
                reply = stores.queues.begin_append(
                    channel,
                    list(map(events.__getitem__, indexes)),
                    bindings_version=version,
                    traceparent=traceparent,
                    now_ms=publish.now_ms,
                )
                self._replies.append(reply)
        if matched.sessions:
            self._append_to_sessions()
        self._versions = stores.routing.tables.versions(posted.account_id)
        self._replies += (self._versions.own, self._versions.every)
        if matched.types:
            self._replies += stores.routing.learn_device_types(posted.account_id, matched.types)
        if matched.wants_receipts:
            self._replies += _open_receipts(stores.receipts, publish, matched)
        # Replies mostly come in order: to wait for the last one first costs one callback instead of many.
        self._left = len(self._replies)
        self._wait()

    def _append_to_sessions(self) -> None:
        posted, taken = self.publish.posted, self.publish.taken
        for session, indexes in self.matched.sessions.items():
            offered = taken.sessions.get(session, ())
            self._sessions[session] = missing = [index for index in indexes if index not in offered]
            chosen = [posted.events[index] for index in missing]
            self._replies.append(self._stores.sessions.begin_append(session, posted.account_id, chosen))

    def _wait(self, _: object = None) -> None:
        while self._left:
            reply = self._replies[self._left - 1]
            if not reply.done():
                reply.add_done_callback(self._wait)
                return
            self._left -= 1
        self._on_end(self)

    def record(self) -> list[tuple[str, str]]:
        """Notes what has taken its events. Raises StoreUnavailable.

        Returns the channels that refused the version of their bindings, each with the one that it has.
        """
        refused: list[tuple[str, str]] = []
        taken = self.publish.taken
        replies = iter(self._replies)
        for channel in self._channels:
            reply = next(replies).result()
            appended = self._stores.queues.end_append(reply)
            if appended is Appended.QUEUED:
                taken.channels[channel] = self.matched.channels[channel]
            elif appended is Appended.STALE:
                refused.append((channel, reply[1].decode()))
        for session, indexes in self._sessions.items():
            count = self._stores.sessions.end_append(next(replies).result(), count=len(indexes))
            offered = taken.sessions.setdefault(session, {})
            offered |= {index: place < count for place, index in enumerate(indexes)}
        for other in replies:
            other.result()
        return refused

    def confirm(self, refused: Collection[str]) -> None:
        """Tells the table which channels have the version that this round named: those that did not refuse.

        A channel that took its events in an earlier round is not among them: the table has moved on since.
        """
        for channel, version in self._channels.items():
            if channel not in refused:
                self.matched.table.confirm(channel, bindings_version=version)

    def is_current(self) -> bool:
        """Do the tables still have the versions that the events were matched with?"""
        return self._versions.of_tables == self.matched.versions

    @property
    def credentials_version(self) -> bytes:
        """As it was read in this round trip."""
        return self._versions.of_credentials

    @property
    def quotas_version(self) -> bytes:
        """As it was read in this round trip."""
        return self._versions.of_quotas


def counts_of(publish: Publish, matched: Matched) -> list[int]:
    """For each event the number of channels and sessions that have taken it.

    A session counts only if it matches now: what it took and no longer wants, its edge drops.
    """
    counts = [0] * len(publish.posted.events)
    for indexes in publish.taken.channels.values():
        for index in indexes:
            counts[index] += 1
    for session, indexes in matched.sessions.items():
        offered = publish.taken.sessions[session]
        for index in indexes:
            counts[index] += offered[index]
    return counts


def _open_receipts(receipts: Receipts, publish: Publish, matched: Matched) -> list[asyncio.Future[Any]]:
    """Opens the receipts that were asked for; they name also what took the events in an earlier round."""
    events: Sequence[Event] = publish.posted.events
    channels_of: dict[int, list[str]] = {index: [] for index, event in enumerate(events) if event.receipt}
    for channel, indexes in {**matched.channels, **publish.taken.channels}.items():
        for index in indexes:
            if index in channels_of:
                channels_of[index].append(channel)
    return [
        receipts.open(publish.account.id, events[index], channels=channels, now_ms=publish.now_ms)
        for index, channels in channels_of.items()
    ]
