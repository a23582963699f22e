"""Streams: a retained log for each topic that a rule of the account names.

A queue holds what one channel has not acknowledged. A stream keeps the last events of a topic, received or
not: by their ids, and from a time on. Each append trims what the rule no longer keeps.
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.model.streams import Keep, Mark, Retained, StreamRule, StreamRules, rules_of, stored_rules
from shared.redis.connection import Argument, Command, OnReply
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace, stream_names
from shared.store.event_identity import identity, identity_of
from shared.store.recount import pages, places_in_use
from shared.store.routing import Routing
from shared.store.shared_appends import SharedStreamAppend

STREAM_LOT = 64
"""Events in one append: each takes an entry and a name, and trims others."""
READ_LOT = 100
# What requests may have that share an append: live wakeups of more carry no events.
_SHARED_BYTES = 24 * 1024
_OUTLIVES_MS = 30 * 24 * 3600 * 1000
_DAY_MS = 24 * 3600 * 1000
_LIMIT = Keep(100_000, 30 * _DAY_MS)
_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """The most that any rule keeps of a topic, and the most topics of an account that have a stream."""

    keep: Keep = _LIMIT
    topics: int = 10_000


class Streams:
    """Appends to streams and reads them. `routing` has the rules."""

    def __init__(
        self, redis: RedisCommands, routing: Routing, *, limits: StreamLimits = StreamLimits()
    ) -> None:
        self._redis = redis
        self._routing = routing
        self.limits = limits
        # A log gets the epoch of its first append. Random bytes for each append would be a system call each.
        self._epochs = map((secrets.token_hex(4) + "{:08x}").format, itertools.count(1))
        # A part of the age longer than they must: `stream_append.lua` renews them now and then.
        remembered_ms = limits.keep.age_ms * 33 // 32 + _OUTLIVES_MS
        # The last append to each stream that waits to be sent, and the first of them all.
        self._joinable: dict[str, SharedStreamAppend] = {}
        self._first: Command | None = None
        self._ends = f"{_OUTLIVES_MS} {remembered_ms} {max(1, limits.topics // stream_names.PLACES)}"

    async def rules(self, account_id: str) -> StreamRules:
        stored = await self._routing.stream_rules(account_id)
        return rules_of(orjson.loads(stored or b"[]"))

    async def put_rules(self, account_id: str, rules: Sequence[StreamRule]) -> None:
        """Replaces the account's rules, from its next publish on. Raises NoSuchAccount."""
        await self._routing.put_stream_rules(account_id, orjson.dumps(stored_rules(rules)) if rules else b"")

    def begin_append(
        self,
        account_id: str,
        topic: str,
        events: Sequence[Event],
        *,
        keep: Keep,
        deadline: Deadline | None = None,
    ) -> asyncio.Future[Any]:
        """Appends up to `STREAM_LOT` events of one topic, in order, all or none.

        Returns the reply for `end_append`. `event.to` is the id of a channel.
        """
        names = stream_names.names(account_id, topic)
        # A later append must not overtake this one.
        self._joinable.pop(names[0], None)
        until_ms = "" if deadline is None else deadline.ms
        head = self._head(topic, keep.within(self.limits.keep), until_ms)
        return self._redis.script("stream_append", names, *head, *_groups(events))

    def append_then(
        self,
        on_reply: OnReply,
        account_id: str,
        topic: str,
        events: Sequence[Event],
        *,
        keep: Keep,
        size_bytes: int,
    ) -> None:
        """The same by callback, for events of so many bytes. The callback gets the reply for `end_append`, or
        an exception.

        Requests that arrive while the pipeline waits share an append to a topic, and its live wakeup. Each
        gets its own reply.
        """
        joinable = self._joinable
        if self._first is not None and self._first.is_closed:
            # Sent, and with it all others, or nearly all.
            joinable.clear()
            self._first = None
        names, groups, count = stream_names.names(account_id, topic), _groups(events), len(events)
        keep = keep.within(self.limits.keep)
        shared = joinable.get(names[0])
        if shared is not None and shared.add(on_reply, groups, keep=keep, count=count, size_bytes=size_bytes):
            return
        command = self._redis.script_then(
            on_reply, "stream_append", names, *self._head(topic, keep, ""), *groups
        )
        if command is not None:
            self._first = self._first or command
            joinable[names[0]] = SharedStreamAppend(
                command, keep, count=count, room=STREAM_LOT - count, size_bytes=_SHARED_BYTES - size_bytes
            )

    def _head(self, topic: str, keep: Keep, deadline_ms: int | str) -> tuple[Argument, ...]:
        return (next(self._epochs), topic, *keep, deadline_ms, self._ends)

    @staticmethod
    def end_append(reply: Sequence[Any]) -> list[str] | None:
        """The offsets of the events; None when the deadline of their request has passed."""
        status, *fields = reply
        return None if status == b"late" else [offset.decode() for offset in fields[1:]]

    async def find(self, account_id: str, event_id: str, *, source: str = "") -> Retained | None:
        """The newest event of this id that is still retained. `source` is that of a CloudEvent."""
        wanted = identity(event_id, source)
        names = stream_names.events(account_id, wanted)
        places = await asyncio.gather(*(self._redis.command("GET", name) for name in names))
        found = [
            (tuple(map(int, offset.split(b"-"))), names[at], hashed.decode(), offset.decode())
            for at, place in enumerate(places)
            if place is not None
            for hashed, _, offset in [place.partition(b" ")]
        ]
        for _, name, hashed, offset in sorted(found, reverse=True):
            tag = name.partition("-event:")[0]
            names = [f"{tag}:{hashed}", f"{tag}-state:{hashed}"]
            retained = await self._read(names, before_offset(offset), offset, 1, 0)
            if retained and identity_of(retained[0].event) == wanted:
                return retained[0]
        return None

    async def read(
        self, account_id: str, topic: str, *, after: str, until: str = "+", count: int, size_bytes: int
    ) -> list[Retained]:
        """Up to `count` events behind an offset, about `size_bytes` of them but at least one.

        One read returns 100 at most. None behind them only if it returns none.
        """
        names = stream_names.names(account_id, topic)[:2]
        return await self._read(names, after, until, min(count, READ_LOT), size_bytes)

    async def _read(
        self, names: Sequence[str], after: str, until: str, count: int, size_bytes: int
    ) -> list[Retained]:
        topic, *entries = await self._redis.script("stream_read", names, after, until, count, size_bytes)
        return [retained_entry(topic.decode(), *entry) for entry in entries]

    async def topics(self, account_id: str) -> AsyncIterator[Sequence[str]]:
        """The topics that have a stream or had one, a page at a time."""
        for place in await places_in_use(self._redis, account_id):
            async for some in pages(self._redis, "ZSCAN", place, "*"):
                yield [member.partition(" ")[2] for member in some]

    def length(self, account_id: str, topic: str) -> asyncio.Future[int]:
        """How many events the stream has."""
        [stream, *_] = stream_names.names(account_id, topic)
        return self._redis.command("XLEN", stream)

    async def purge(self, account_id: str, topic: str) -> Mark | None:
        """Drops everything that is retained of the topic; None when there is no such stream.

        From the first of the bounded steps on nothing of it is to be had, and the stream has another epoch:
        that of the mark, whose offset is the last one. What a purge leaves that is cut off ends with the age
        of its rule.
        """
        [stream, state, place] = stream_names.names(account_id, topic)
        purged = stream_names.purged(account_id, topic)
        reply = await self._redis.script("stream_purge", [stream, state, purged], secrets.token_hex(3))
        if not reply:
            return None
        await self._drop_lots("stream_purge_lot", [purged, stream, place])
        epoch, last = reply
        return Mark(epoch.decode(), last.decode())

    async def drop(self, account_id: str) -> None:
        """Drops the rules and everything retained, in bounded steps. A repetition goes on."""
        await self._routing.put_stream_rules(account_id, b"")
        async for some in self.topics(account_id):
            for topic in some:
                names = stream_names.names(account_id, topic)
                # What a purge has left that was cut off.
                purged = [stream_names.purged(account_id, topic), names[0], names[2]]
                await self._drop_lots("stream_purge_lot", purged)
                await self._drop_lots("stream_drop", names, _member(topic))
            await asyncio.sleep(_PAUSE_S)

    async def _drop_lots(self, script: str, names: Sequence[str], *arguments: str) -> None:
        more = True
        while more:
            more = bool(await self._redis.script(script, names, *arguments))
            await asyncio.sleep(_PAUSE_S)


def before_offset(offset: str) -> str:
    """The largest offset before this one."""
    ms, _, sequence = offset.partition("-")
    return f"{ms}-{int(sequence) - 1}" if int(sequence) else f"{int(ms) - 1}-{2**64 - 1}"


def _groups(events: Sequence[Event]) -> list[Argument]:
    """The events as the script takes them."""
    assert len(events) <= STREAM_LOT, f"{len(events)} events; one append takes {STREAM_LOT}"
    groups: list[Argument] = []
    for each in events:
        hashed = keyspace.hash_of(identity_of(each))
        groups += (each.id, each.data, each.name, each.time, hashed, _more_of(each))
    return groups


def _member(topic: str) -> str:
    """What names a topic at its place."""
    return f"{keyspace.hash_of(topic)} {topic}"


def _more_of(event: Event) -> bytes:
    """What is rarely known of an event; b"" without any. `stream_append.lua` looks how it begins."""
    if event.to is None and event.customer is None and not event.attributes:
        return b""
    more: dict[str, Any] = {"to": event.to, "customer": event.customer}
    if event.attributes:
        more["attributes"] = orjson.Fragment(event.attributes)
    return orjson.dumps({name: value for name, value in more.items() if value is not None})


def retained_entry(topic: str, offset: bytes, values: Sequence[bytes]) -> Retained:
    """An entry as the stream has it."""
    more = values[11] if len(values) > 10 else b""
    return retained_at(topic, offset, values[1], values[3], values[5], values[7], more)


def retained_at(
    topic: str, offset: bytes, event_id: bytes, data: bytes, name: bytes, time: bytes, rare: bytes
) -> Retained:
    if not rare:
        event = Event(event_id.decode(), topic, data, name.decode(), time.decode())
        return Retained(offset.decode(), event)
    more = orjson.loads(rare)
    event = Event(
        id=event_id.decode(),
        topic=topic,
        data=data,
        name=name.decode(),
        time=time.decode(),
        to=more.get("to"),
        customer=more.get("customer"),
        attributes=orjson.dumps(more["attributes"]) if "attributes" in more else b"",
    )
    return Retained(offset.decode(), event)
