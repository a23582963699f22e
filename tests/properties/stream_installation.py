"""One topic on a real Redis, and readers of it that follow its live wakeups as an edge does."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from shared.model.events import Event
from shared.model.streams import Keep, Mark, NotRecovered, Start
from shared.redis.client import connect
from shared.redis.pipeline import Script
from shared.store import stream_names
from shared.store.stream_reads import StreamReads
from shared.store.stream_wakeups import StreamWakeup, live_name, parse
from shared.store.streams import Streams
from tests.harness.valkey import Valkey
from tests.properties.stream_model import Expectation, Log, Record
from tests.store.stores import HOUR_MS, Backend, RedisClock, Stores

TOPIC = "orders"
AGE_MS = HOUR_MS
_LARGE = b"1" * 33_000
_FOREVER_MS = 60 * 24 * HOUR_MS
_MOST_PAGES = 1000
_CLOCK = "{clock}:append"
# The time of appends, while a test stops it.
_STOPPED = (
    f"local clock = redis.call('LRANGE', '{_CLOCK}', 0, -1)\nif #clock == 0 then clock = call('TIME') end"
)


@dataclass
class _Snapshot:
    """What Redis had on its disk, and what was expected then."""

    dumps: Mapping[str, bytes | None]
    identity: int
    states: Sequence[tuple[set[NotRecovered], bool]]


class Reader:
    """Reads from a place on; hears wakeups unless they are lost. It never forgets where it is."""

    def __init__(self, reads: StreamReads, account_id: str, log: Log, name: str) -> None:
        self._reads = reads
        self._account_id = account_id
        self._log = log
        self.expectation = Expectation(log, name)
        self._mark: Mark | None = None
        self.inbox: deque[tuple[StreamWakeup, int]] = deque()

    @property
    def mark(self) -> Mark | None:
        return self._mark

    @mark.setter
    def mark(self, mark: Mark) -> None:
        self._mark = mark
        self.expectation.is_behind(mark)

    async def start(self, start: Start, *, count: int) -> None:
        resumed = await self._reads.resume(self._account_id, TOPIC, start, count=count, size_bytes=10**6)
        self.expectation.begins(start, resumed)
        self.expectation.gets(resumed.events)
        self.mark = resumed.mark

    async def read(self, *, count: int) -> bool:
        """One page; whether it is at the end."""
        assert self.mark is not None
        mark, expectation = self.mark, self.expectation
        must_be_told = expectation.must_be_told(mark)
        resumed = await self._reads.resume(self._account_id, TOPIC, mark, count=count, size_bytes=10**6)
        expectation.resumes(mark, resumed, must_be_told=must_be_told)
        expectation.gets(resumed.events)
        self.mark = resumed.mark
        if resumed.reason is not None:
            # What was heard before may be of what Redis has lost: its place may be known again.
            self.inbox.clear()
        return resumed.is_at_end

    async def hear(self, *, count: int) -> None:
        """The next wakeup, if there is one."""
        if not self.inbox:
            return
        wakeup, changes = self.inbox.popleft()
        assert self.mark is not None
        events = wakeup.retained(TOPIC)
        if events is not None and self.follows(wakeup):
            self.expectation.hears(self.mark, changes=changes)
            self.expectation.gets(events)
            self.mark = wakeup.mark
        else:
            await self.read(count=count)

    def follows(self, wakeup: StreamWakeup) -> bool:
        assert self.mark is not None
        return wakeup.follows(self.mark)

    async def read_all(self) -> None:
        for _ in range(_MOST_PAGES):
            if await self.read(count=3):
                self.expectation.is_at_end()
                return
        raise AssertionError("no end of the stream")


MakeReader: TypeAlias = Callable[[StreamReads, str, Log, str], Reader]


class StreamInstallation:
    """The stream, its publisher, and what can happen to it."""

    def __init__(self, valkey: Valkey, *, scripts: Mapping[str, Script], make_reader: MakeReader) -> None:
        self.direct = valkey.client()
        self.direct.flushall()
        self._make_reader = make_reader
        self._runner = asyncio.Runner()
        self._runner.run(self._connect(valkey, scripts))
        self.log = Log()
        self.readers: list[Reader] = []
        self.snapshots: list[_Snapshot] = []
        self._pubsub = self.direct.pubsub()
        self._pubsub.ssubscribe(live_name(self._stores.account_id, TOPIC))
        assert self._pubsub.get_message(timeout=10)["type"] == "ssubscribe"
        self._old_ms = 0
        [self._stream, self._state, _] = stream_names.names(self._stores.account_id, TOPIC)

    async def _connect(self, valkey: Valkey, scripts: Mapping[str, Script]) -> None:
        self._redis = connect(valkey.url)
        append = scripts["stream_append"]
        source = append.source.replace("local clock = call('TIME')", _STOPPED)
        assert source != append.source
        scripts = {**scripts, append.name: Script(append.name, source)}
        backend = Backend(lambda: self._redis, self.direct, scripts)
        self._stores = Stores(self._redis, backend)
        self._clock = RedisClock(self.direct)
        self._clock.ahead_ms = 0
        calls = self._clock.calls_of(self._stores)
        self._streams = Streams(calls, self._stores.routing)
        self._reads = StreamReads(calls)

    def close(self) -> None:
        self._pubsub.close()
        self.run(self._redis.aclose())
        self._runner.close()
        self.direct.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self._runner.run(work)

    # Publishing

    def publish(self, kinds: Sequence[str], *, most: int) -> None:
        """One append. A kind is public, large, or for one channel or customer."""
        self._stores.let_time_pass()
        first = len(self.log.records) + 1
        given = [_event(number, kind) for number, kind in enumerate(kinds, first)]
        keep = Keep(most, AGE_MS)

        async def append() -> None:
            reply = await self._streams.begin_append(self._stores.account_id, TOPIC, given, keep=keep)
            offsets = Streams.end_append(reply)
            assert offsets is not None
            for offset, kind in zip(offsets, kinds, strict=True):
                self.log.add(offset, is_public=kind in ("public", "large"))

        before = self._in_redis()
        self.run(append())
        self._stores.let_time_pass()
        after = self._in_redis()
        for record in self.log.records:
            was_there = record.number >= first or record.offset in before
            if was_there and not record.is_lost and record.offset not in after:
                record.gone.add(NotRecovered.TRIMMED)
        self._look()

    def stop_clock(self) -> None:
        """Appends are of this moment, until it is started."""
        self._stores.let_time_pass()
        self.direct.rpush(_CLOCK, *self.direct.time())

    def start_clock(self) -> None:
        self.direct.delete(_CLOCK)
        self._stores.let_time_pass()

    def _in_redis(self) -> set[str]:
        return {entry.decode() for entry, _ in self.direct.xrange(self._stream)}

    def _look(self) -> None:
        """Takes over what Redis has now, and the wakeups that it has published."""
        self.log.epoch = (self.direct.hget(self._state, "epoch") or b"").decode()
        for record in self.log.records:
            if not record.is_lost and record.ms <= self._old_ms:
                record.gone.add(NotRecovered.EXPIRED)
        self._pubsub.ping()
        while (message := self._pubsub.get_message(timeout=10))["type"] == "smessage":
            for reader in self.readers:
                reader.inbox.append((parse(message["data"]), self.log.changes))

    # What ends events

    def age(self, which: int) -> None:
        """Events up to one of them become too old, and stay in Redis."""
        there = self.log.there()
        if there:
            self._old_ms = there[which % len(there)].ms
            self.direct.set("{clock}:ms", self._old_ms + AGE_MS + 1)
            self._look()

    def expire(self) -> None:
        """All events end by their TTL."""
        self.direct.delete(self._stream)
        for record in self.log.records:
            if not record.is_lost:
                record.gone.add(NotRecovered.EXPIRED)
        self._look()

    def purge(self) -> None:
        async def purge() -> None:
            purged = await self._streams.purge(self._stores.account_id, TOPIC)
            assert (purged is None) == (self.log.epoch == "")

        self.run(purge())
        if self.log.epoch == "":
            return
        self.log.changes += 1
        self.log.begin_anew()
        for record in self.log.records:
            if not record.is_lost:
                record.gone.add(NotRecovered.PURGED)
        for reader in self.readers:
            reader.expectation.may_be_purged = True
        self._look()

    # What Redis loses

    def save(self) -> None:
        dumps = {name: self.direct.dump(name) for name in (self._stream, self._state)}
        states = [(set(each.gone), each.is_lost) for each in self.log.records]
        self.snapshots.append(_Snapshot(dumps, self.log.identity, states))

    def lose_tail(self, which: int) -> None:
        """A Redis comes that has nothing of what was written after one of the snapshots."""
        if not self.snapshots:
            return
        del self.snapshots[which % len(self.snapshots) + 1 :]
        snapshot = self.snapshots[-1]
        for name, dump in snapshot.dumps.items():
            self.direct.delete(name)
            if dump is not None:
                self.direct.restore(name, _FOREVER_MS, dump)
        kept = self.log.records[: len(snapshot.states)]
        for record, (gone, is_lost) in zip(kept, snapshot.states, strict=True):
            record.gone, record.is_lost = set(gone), is_lost
        self.log.identity = snapshot.identity
        self._lose(self.log.records[len(kept) :])

    def flush(self, *, only_state: bool) -> None:
        """Redis loses all of the stream, or its state, without which the entries prove nothing."""
        self.direct.delete(self._state, *([] if only_state else [self._stream]))
        self.log.begin_anew()
        self._lose(self.log.records)

    def _lose(self, records: Sequence[Record]) -> None:
        self.log.lose(records)
        self.log.changes += 1
        for reader in self.readers:
            reader.expectation.may_be_lost = True
        self._look()

    # Readers

    def join(self, start: Start, *, count: int) -> None:
        name = f"reader {len(self.readers)}"
        reader = self._make_reader(self._reads, self._stores.account_id, self.log, name)
        self.run(reader.start(start, count=count))
        self.readers.append(reader)

    def read_all(self) -> None:
        for reader in self.readers:
            reader.inbox.clear()
            self.run(reader.read_all())


def _event(number: int, kind: str) -> Event:
    data = _LARGE if kind == "large" else b"1"
    to = "0" * 32 if kind == "for a channel" else None
    return Event(str(number), TOPIC, data, to=to, customer="acme" if kind == "for a customer" else None)
