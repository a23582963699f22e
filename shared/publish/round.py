"""One round of a publish: its appends, and the versions of its routing tables.

Nearly every round is one lot (`lots.py`): one round trip. A larger one is sent lot by lot. The events for a
channel that are too many for one append go in several, in order, and each is queued completely or not at all.
All of them name the version of the channel's bindings. If the channel refuses one, because its bindings have
changed, it refuses the ones behind it too: it never has an older version again. The next round offers it the
events that match it then and come behind the last one that it took. So it gets nothing twice and nothing out
of order. What it did not want before that event it does not get: its bindings changed while the publish was
under way.

While the rounds of an account wait for each other, those right behind the first one join its appends: one
script call takes a few events of several publishes for nearly the price of one.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from shared.model.account_channels import shown_id
from shared.model.errors import DeadlinePassed, StoreUnavailable
from shared.model.events import Event
from shared.publish.lots import LOT_COST, Line, Sendable, cost_of
from shared.publish.matching import Matched, as_retained, cost_of_retained
from shared.publish.state import Publish
from shared.publish.stores import PublishStores
from shared.store.idempotency import LATE
from shared.store.queues import APPEND_LOT, Appended
from shared.store.shared_appends import reply_beside
from shared.store.streams import STREAM_LOT, Streams

# Above LOT_COST: nothing follows in the same lot.
_ENDS_LOT = LOT_COST + 1
_ID_BYTES = 40
# What one append takes of the rounds behind: with more events it is hardly cheaper for each, and the first
# publish waits longer for its last lot.
_JOINED_EVENTS = 20
_JOINED_BYTES = 24 * 1024
_FOLLOWERS = 16
# Device types of one command: no atomic step of Redis may be long.
_MOST_TYPES = 250


class Round:
    """Sent by `Lots`. Calls `on_end` when every reply is there, or one of them is an error."""

    __slots__ = (
        *("_appends", "_channels", "_commands", "_followers", "_joined_cost", "_left", "_on_lot"),
        *("_refused", "_replies", "_retained", "_room", "_sessions", "_stores", "_traceparent"),
        *("cost", "error", "is_sent", "line", "lot_cost", "matched", "on_end", "publish", "versions"),
    )

    def __init__(
        self, stores: PublishStores, publish: Publish, matched: Matched, on_end: Callable[["Round"], None]
    ) -> None:
        """Appends to what has not taken its events yet."""
        self.publish, self.matched = publish, matched
        self.line: Line = publish.account
        self._stores, self.on_end = stores, on_end
        self._traceparent = "" if publish.span is None else publish.span.traceparent
        # Of all that it may send.
        self.cost = cost_of(
            commands=len(matched.channels) + len(matched.sessions),
            copies=matched.copies + len(matched.types),
            size_bytes=matched.size_bytes,
        )
        if matched.retained:
            self.cost += cost_of_retained(matched)
        events = len(publish.posted.events)
        if matched.wants_receipts:
            # Each names the channels.
            self.cost += cost_of(commands=events, copies=events, size_bytes=_ID_BYTES * matched.copies)
        if events > APPEND_LOT:
            # A channel may need several appends, which wait for each other.
            self.cost += LOT_COST
        self.lot_cost, self.is_sent = 0, False
        self.error: Exception | None = None
        # Each channel with the version of its bindings that its append names.
        self._channels: dict[str, str] = {}
        self._refused: list[tuple[str, str]] = []
        self._followers: list[Round] = []
        self._joined_cost = 0
        # Of the lot that was sent last, in this order: appends to channels, sessions and streams, all others.
        # Those to channels with whether it is the channel's last, and whether an earlier round has sent it.
        self._appends: list[tuple[str, Sequence[int], bool, bool]] = []
        self._sessions: list[tuple[str, Sequence[int]]] = []
        self._retained: list[Sequence[int]] = []
        self._replies: list[asyncio.Future[Any]] = []
        self._commands = self._send_all()

    # Sending

    def send_lot(self, on_lot: Callable[[Sendable], None]) -> None:
        """Sends the next lot. An error ends the round."""
        cost, self._joined_cost = 0, 0
        self._room = LOT_COST - self.cost if self.cost <= LOT_COST else LOT_COST
        self._followers = self._find_followers()
        try:
            for each in self._commands:
                cost += each
                if cost + self._joined_cost > LOT_COST:
                    break
            else:
                self.is_sent = True
        except Exception as error:
            self.error, self.is_sent = error, True
        self.lot_cost = self._joined_cost + (cost if self.cost > LOT_COST else self.cost)
        self._on_lot = on_lot
        # Replies mostly come in order: to wait for the last one first costs one callback instead of many.
        self._left = len(self._replies)
        if self._left:
            self._wait()
        else:
            asyncio.get_running_loop().call_soon(self._wait)

    def _send_all(self) -> Iterator[int]:
        """Sends command after command; yields the cost of each that may end a lot."""
        matched, taken, events = self.matched, self.publish.taken, self.publish.posted.events
        versions = matched.table.bindings_versions
        fits_one_lot = self.cost <= LOT_COST
        if not fits_one_lot:
            # As they are now: what was matched by them is sent with them.
            versions = dict(versions)
        for channel, indexes in matched.channels.items():
            if channel in self._channels:
                # It went with the append of a round before this one.
                continue
            version = versions.get(channel)
            missing: Sequence[int] = (
                indexes if channel not in taken.channels else self._rest(channel, indexes)
            )
            # A table may name a channel whose key is gone, until the reaper drops it.
            if version is None or not missing:
                continue
            self._channels[channel] = version
            if fits_one_lot:
                self._append(channel, missing)
            elif len(missing) == 1:
                self._append(channel, missing)
                event = events[missing[0]]
                yield cost_of(commands=1, copies=1, size_bytes=len(event.data) + len(event.attributes))
            else:
                yield from self._append_in_lots(channel, missing)
        for session, indexes in matched.sessions.items():
            for part, cost, _ in self._parts(self._not_offered(session, indexes)):
                self._append_to_session(session, part)
                yield cost
        if matched.streams and self._stores.streams is not None:
            yield from self._retain(self._stores.streams)
        if matched.types:
            yield from self._learn_types()
        if matched.wants_receipts:
            yield from self._open_receipts()
        self.versions = self._stores.routing.tables.versions(self.publish.account.id)
        self._replies += (self.versions.own, self.versions.every)

    def _retain(self, streams: Streams) -> Iterator[int]:
        """Appends to streams what they have not taken in an earlier round: they refuse nothing."""
        publish, taken = self.publish, self.publish.taken.offsets
        events, table = publish.posted.events, self.matched.table
        for topic, (keep, indexes) in self.matched.streams.items():
            missing = [index for index in indexes if index not in taken]
            for part, cost, _ in self._parts(missing, most=STREAM_LOT):
                some = [as_retained(events[index], table) for index in part]
                reply = streams.begin_append(
                    publish.account.id, topic, some, keep=keep, deadline=publish.deadline
                )
                self._replies.append(reply)
                self._retained.append(part)
                yield cost + len(part)

    def _learn_types(self) -> Iterator[int]:
        account_id, types = self.publish.account.id, iter(self.matched.types.items())
        while some := dict(islice(types, _MOST_TYPES)):
            self._replies += self._stores.routing.learn_device_types(
                account_id, some, deadline=self.publish.deadline
            )
            yield cost_of(commands=0, copies=len(some), size_bytes=0)

    def _append_in_lots(self, channel: str, indexes: Sequence[int]) -> Iterator[int]:
        # A channel may refuse one append and accept the next one, if it does not have this version yet.
        waits_for_each = channel in self.matched.table.unconfirmed
        for part, cost, is_last in self._parts(indexes):
            self._append(channel, part, is_last=is_last)
            yield cost if is_last or not waits_for_each else _ENDS_LOT
            if any(channel == refused for refused, _ in self._refused):
                return

    def _parts(
        self, indexes: Sequence[int], *, most: int = APPEND_LOT
    ) -> Iterator[tuple[Sequence[int], int, bool]]:
        """What one append takes at a time, the cost of that append, and whether it is the last one."""
        events = self.publish.posted.events
        start = size = cost = 0
        for end, index in enumerate(indexes):
            event_bytes = len(events[index].data) + len(events[index].attributes)
            size += event_bytes
            more = cost_of(commands=1, copies=end - start + 1, size_bytes=size)
            if end > start and (more > LOT_COST or end - start == most):
                yield indexes[start:end], cost, False
                start, size = end, event_bytes
                more = cost_of(commands=1, copies=1, size_bytes=size)
            cost = more
        if indexes:
            yield indexes[start:], cost, True

    def _append(self, channel: str, indexes: Sequence[int], *, is_last: bool = True) -> None:
        events = list(map(self.publish.posted.events.__getitem__, indexes))
        version = self._channels[channel]
        has_room = bool(self._followers) and self._joined_cost < self._room
        joining = self._join(channel, version, events) if is_last and has_room else ()
        reply = self._stores.queues.begin_append(
            channel,
            events,
            bindings_version=version,
            traceparent=self._traceparent,
            deadline=self.publish.deadline,
        )
        self._replies.append(reply)
        self._appends.append((channel, indexes, is_last, False))
        for other, of_other in joining:
            other._channels[channel] = version
            other._replies.append(reply)
            other._appends.append((channel, of_other, True, True))

    def _find_followers(self) -> "list[Round]":
        """The rounds right behind this one in the account's line, as far as they may join its appends."""
        unsent = self.line.unsent
        if len(unsent) < 2 or unsent[0] is not self or not self._may_share:
            return []
        found: list[Round] = []
        for other in islice(unsent, 1, 1 + _FOLLOWERS):
            if not isinstance(other, Round) or not other._may_share:
                break
            found.append(other)
        return found

    @property
    def _may_share(self) -> bool:
        """Do its appends differ from those of other publishes by their events alone?"""
        return not (self._traceparent or self.matched.wants_receipts or self.publish.deadline)

    def _join(self, channel: str, version: str, events: list[Event]) -> "list[tuple[Round, Sequence[int]]]":
        """Adds to the events what followers have for the channel, in order: of each all or nothing."""
        joining: list[tuple[Round, Sequence[int]]] = []
        size = _bytes_of(events)
        for other in self._followers:
            indexes = other.matched.channels.get(channel)
            if indexes is None:
                continue
            is_fresh = channel not in other._channels and channel not in other.publish.taken.channels
            if not is_fresh or other.matched.table.bindings_versions.get(channel) != version:
                break
            more = list(map(other.publish.posted.events.__getitem__, indexes))
            size += (more_bytes := _bytes_of(more))
            if len(events) + len(more) > _JOINED_EVENTS or size > _JOINED_BYTES:
                break
            events += more
            joining.append((other, indexes))
            self._joined_cost += cost_of(commands=0, copies=len(more), size_bytes=more_bytes)
        return joining

    def _rest(self, channel: str, indexes: Sequence[int]) -> list[int]:
        """What a channel that has taken events is still offered."""
        taken = self.publish.taken
        if channel not in taken.unfinished:
            return []
        last = taken.channels[channel][-1]
        return [index for index in indexes if index > last]

    def _append_to_session(self, session: str, indexes: Sequence[int]) -> None:
        posted = self.publish.posted
        chosen = [posted.events[index] for index in indexes]
        reply = self._stores.sessions.begin_append(
            session, posted.account_id, chosen, deadline=self.publish.deadline
        )
        self._replies.append(reply)
        self._sessions.append((session, indexes))

    def _not_offered(self, session: str, indexes: Sequence[int]) -> Sequence[int]:
        offered = self.publish.taken.sessions.get(session, ())
        return [index for index in indexes if index not in offered]

    def _open_receipts(self) -> Iterator[int]:
        """Opens the receipts that were asked for; they name also what took the events in an earlier round."""
        publish, matched = self.publish, self.matched
        events = publish.posted.events
        channels_of: dict[int, list[str]] = {index: [] for index, event in enumerate(events) if event.receipt}
        for channel, indexes in {**matched.channels, **publish.taken.channels}.items():
            shown = shown_id(channel) if matched.table.is_native(channel) else channel
            for index in indexes:
                if index in channels_of:
                    channels_of[index].append(shown)
        for index, channels in channels_of.items():
            reply = self._stores.receipts.open(
                publish.account.id,
                events[index],
                channels=channels,
                now_ms=publish.now_ms,
                deadline=publish.deadline,
            )
            self._replies.append(reply)
            yield cost_of(commands=1, copies=1, size_bytes=_ID_BYTES * len(channels))

    # Replies

    def _wait(self, _: object = None) -> None:
        while self._left:
            reply = self._replies[self._left - 1]
            if not reply.done():
                reply.add_done_callback(self._wait)
                return
            self._left -= 1
        if self.error is None:
            try:
                self._record_lot()
            except Exception as error:
                self.error, self.is_sent = self._least_certain(error), True
        self._on_lot(self)

    def _least_certain(self, error: Exception) -> Exception:
        """Of the lot's errors one that says that a write may still come, if there is any."""
        errors = (reply.exception() for reply in self._replies if not reply.cancelled())
        return next((each for each in errors if isinstance(each, StoreUnavailable) and each.may_come), error)

    def _record_lot(self) -> None:
        """Notes what has taken its events. Raises StoreUnavailable, DeadlinePassed."""
        taken, counts = self.publish.taken, self.publish.taken.counts
        replies = iter(self._replies)
        for channel, indexes, is_last, has_joined in self._appends:
            reply = next(replies).result()
            appended = self._stores.queues.end_append(reply_beside(reply) if has_joined else reply)
            if appended is Appended.QUEUED:
                before = taken.channels.get(channel)
                taken.channels[channel] = indexes if before is None else [*before, *indexes]
                if not is_last:
                    taken.unfinished.add(channel)
                elif taken.unfinished:
                    taken.unfinished.discard(channel)
                for index in indexes:
                    counts[index] += 1
            elif appended is Appended.STALE:
                self._refused.append((channel, reply[1].decode()))
            elif appended is Appended.LATE:
                raise DeadlinePassed
        for session, indexes in self._sessions:
            count = self._stores.sessions.end_append(next(replies).result(), count=len(indexes))
            offered = taken.sessions.setdefault(session, {})
            offered |= {index: place < count for place, index in enumerate(indexes)}
        for part in self._retained:
            offsets = Streams.end_append(next(replies).result())
            if offsets is None:
                raise DeadlinePassed
            taken.offsets.update(zip(part, offsets, strict=True))
        for other in replies:
            if other.result() == LATE:
                raise DeadlinePassed
        if not self.is_sent:
            self._appends, self._sessions, self._retained, self._replies = [], [], [], []

    def fail(self, error: Exception) -> None:
        self.error, self.is_sent = error, True
        self.on_end(self)

    # Results

    def record(self) -> list[tuple[str, str]]:
        """The channels that refused the version of their bindings, each with the one that it has.

        Raises StoreUnavailable, DeadlinePassed.
        """
        if self.error is not None:
            raise self.error
        return self._refused

    def confirm(self, refused: Collection[str]) -> None:
        """Tells the table which channels have the version that this round named: those that did not refuse.

        A channel that took its events in an earlier round is not among them: the table has moved on since.
        """
        for channel, version in self._channels.items():
            if channel not in refused:
                self.matched.table.confirm(channel, bindings_version=version)

    def is_current(self) -> bool:
        """Do the tables still have the versions that the events were matched with?"""
        return self.versions.of_tables == self.matched.versions


def _bytes_of(events: Sequence[Event]) -> int:
    return sum(len(event.data) + len(event.attributes) for event in events)
