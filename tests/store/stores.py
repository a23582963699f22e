"""The store's modules on one Redis, and shortcuts for what tests begin with."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fakeredis
from redis.asyncio import Redis

from shared.model.api_keys import ApiKey, Scope, hash_of, new_id, new_secret
from shared.model.channels import Kind, Lease
from shared.model.events import Event, Notification
from shared.redis.pipeline import RedisCommands, Script
from shared.store import keyspace
from shared.store.account_channels import AccountChannels
from shared.store.account_deletion import AccountDeletion
from shared.store.api_keys import ApiKeys
from shared.store.channel_pages import ChannelPages
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.due_channels import DueChannels
from shared.store.fetches import Fetches
from shared.store.leases import Leases
from shared.store.names import Names
from shared.store.queues import APPEND_LOT, BEGINNING, Appended, QueueLimits, Queues
from shared.store.receipts import Receipts
from shared.store.replays import Replays
from shared.store.replicas import Replicas
from shared.store.rounds import Rounds
from shared.store.routing import Routing
from shared.store.scripts import load_scripts
from shared.store.sessions import Sessions
from shared.store.signing_secrets import SigningSecrets
from shared.store.stream_reads import StreamReads
from shared.store.streams import Streams
from shared.store.token_keys import TokenKeys
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns
from tests.harness.fake_redis import FakeRedis

NOW_MS = 1_700_000_000_000
HOUR_MS = 3600 * 1000
EDGE = "edge-1/b00t"
OTHER_EDGE = "edge-2/b11t"
# The size of a notification that `put_at` appends.
PUT_BYTES = 222


@dataclass(frozen=True)
class Backend:
    """One Redis: `connect` makes a client as the services use it, `direct` is a blocking one."""

    connect: Callable[[], Redis]
    direct: Any
    scripts: Mapping[str, Script]


def fake_backend(server: fakeredis.FakeServer) -> Backend:
    """A fake for tests of logic elsewhere. fakeredis runs the scripts without their first line, the flags."""
    scripts = {
        name: Script(name, script.source.partition("\n")[2]) for name, script in load_scripts().items()
    }
    return Backend(
        connect=lambda: FakeRedis(server=server),
        direct=fakeredis.FakeRedis(server=server),
        scripts=scripts,
    )


class Clock:
    """The time that a test sets."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return NOW_MS + self.ahead_ms


class RedisClock(Clock):
    """The time that a test sets, also for scripts: those of `calls_of`."""

    def __init__(self, direct: Any) -> None:
        self._direct = direct
        super().__init__()

    @property
    def ahead_ms(self) -> int:
        return self._ahead_ms

    @ahead_ms.setter
    def ahead_ms(self, ms: int) -> None:
        self._ahead_ms = ms
        self._direct.set("{clock}:ms", NOW_MS + ms, px=HOUR_MS)

    def calls_of(self, stores: "Stores") -> RedisCommands:
        """Commands on the same Redis."""
        return _with_time(stores, "redis.call('GET', '{clock}:ms')")


def at_time(stores: "Stores", ms: int) -> RedisCommands:
    """Commands whose scripts run at this time."""
    return _with_time(stores, f"'{ms}'")


# The id of an attempt is Redis' time, and never goes back.
_NEW_ID = "local function new_id() return '*' end"
_NEW_ID_AT = """local function new_id(name)
  local now, last = tonumber(%s), redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
  return string.format('%%.0f-*', last and math.max(now, string.match(last[1], '^%%d+')) or now)
end"""


def _with_time(stores: "Stores", time: str) -> RedisCommands:
    def changed(script: Script) -> Script:
        now_ms = f"local function now_ms() return tonumber({time}) end\n"
        source = re.sub(r"(?s)local function now_ms\(\).*?\nend\n", lambda _: now_ms, script.source)
        return Script(script.name, source.replace(_NEW_ID, _NEW_ID_AT % time))

    scripts = {name: changed(script) for name, script in stores.scripts.items()}
    return commands_to(stores.redis, scripts=scripts)


class AppendingQueues(Queues):
    """Queues that tests fill."""

    async def append(
        self, api_key_id: str, events: Sequence[Event], *, bindings_version: str = "", traceparent: str = ""
    ) -> Appended:
        """Any number of events, in order. As a publish does, it takes several appends for many."""
        appended = Appended.QUEUED
        for start in range(0, len(events), APPEND_LOT):
            lot = events[start : start + APPEND_LOT]
            reply = self.begin_append(
                api_key_id, lot, bindings_version=bindings_version, traceparent=traceparent
            )
            appended = self.end_append(await reply)
            if appended is not Appended.QUEUED:
                break
        return appended


class Stores:
    """All modules of the store over one `Pipeline`."""

    def __init__(self, redis: Redis, backend: Backend) -> None:
        self.direct = backend.direct
        self.redis = redis
        self.scripts = backend.scripts
        self.calls = commands_to(redis, scripts=backend.scripts)
        self.routing = Routing(self.calls, compiled)
        self.wakeups = Wakeups(self.calls)
        self.api_keys = ApiKeys(self.calls, self.routing, self.wakeups)
        self.channels = Channels(self.calls, self.routing, self.wakeups)
        self.account_channels = AccountChannels(
            self.calls, self.routing, self.wakeups, channels=self.channels
        )
        self.channel_pages = ChannelPages(self.calls, self.account_channels)
        self.due_channels = DueChannels(self.calls)
        self.fetches = Fetches(self.calls, limits=QueueLimits())
        self.leases = Leases(self.calls)
        self.names = Names(self.calls)
        self.replicas = Replicas(self.calls)
        self.rounds = Rounds(self.calls)
        self.queues = AppendingQueues(self.calls)
        self.sessions = Sessions(self.calls, self.routing, self.wakeups, encode=encode_patterns)
        self.receipts = Receipts(self.calls)
        self.replays = Replays(self.calls, self.queues, limits=QueueLimits())
        self.streams = Streams(self.calls, self.routing)
        self.stream_reads = StreamReads(self.calls)
        self.token_keys = TokenKeys(self.calls)
        self.account_deletion = AccountDeletion(
            self.calls,
            api_keys=self.api_keys,
            channels=self.channels,
            sessions=self.sessions,
            streams=self.streams,
            token_keys=self.token_keys,
        )
        self.signing_secrets = SigningSecrets(self.calls)
        self.account_id = new_id()

    async def api_key(self, scope: Scope = Scope.RECEIVE) -> tuple[ApiKey, str]:
        """A new API key of the account, and its secret."""
        api_key_id = new_id()
        secret = new_secret(api_key_id)
        key = ApiKey(
            id=api_key_id,
            account_id=self.account_id,
            name="test",
            scopes=frozenset({scope}),
            created_at_ms=NOW_MS,
            secret_hash=hash_of(secret),
        )
        await self.api_keys.create(key)
        return key, secret

    async def channel(self) -> str:
        """A new API key with a channel; its id."""
        key, _ = await self.api_key()
        await self.make_channel(key.id)
        return key.id

    async def make_channel(self, api_key_id: str) -> bool:
        return await self.channels.create(self.account_id, api_key_id, kind=Kind.WEBSOCKET)

    async def delete_channel(self, api_key_id: str) -> bool:
        return await self.channels.delete(self.account_id, api_key_id, kind=Kind.WEBSOCKET)

    async def claim(self, channel: str, owner: str = f"{EDGE}/1") -> Lease:
        return (await self.leases.claim(channel, owner=owner)).lease

    async def queued(self, channel: str, count: int) -> list[str]:
        """Appends `count` notifications; returns their entry ids."""
        before = self.entries(channel)
        await self.queues.append(channel, events(*range(len(before), len(before) + count)))
        return self.entries(channel)[len(before) :]

    async def pending(self, lease: Lease, after: str = BEGINNING) -> list[Notification]:
        """Everything in the queue behind an entry, as the lease's owner reads it."""
        batch = await self.queues.read(lease, after=after, count=10_000, size_bytes=10_000_000)
        return batch.notifications

    def entries(self, channel: str) -> list[str]:
        return [entry.decode() for entry, _ in self.direct.xrange(keyspace.queue(channel))]

    def owner(self, channel: str) -> str | None:
        """The owner of the lease."""
        owner = self.direct.hget(keyspace.channel(channel), "owner")
        return owner.decode() if owner else None

    def tail(self, channel: str) -> str:
        """The last entry appended."""
        tail: bytes = self.direct.hget(keyspace.channel(channel), "tail")
        return tail.decode()

    def set_owner(self, channel: str, owner: str | None) -> None:
        """Writes the owner past the scripts, or removes it, as a crash of Redis may."""
        name = keyspace.channel(channel)
        if owner is None:
            self.direct.hdel(name, "owner")
        else:
            self.direct.hset(name, "owner", owner)

    def put_at(self, channel: str, *entry_ids: str) -> None:
        """Appends notifications under these entry ids, as a Redis with another clock would."""
        name = keyspace.channel(channel)
        for entry_id in entry_ids:
            before, has_first = int(self.direct.hget(name, "total") or 0), self.direct.hexists(name, "first")
            total = before + PUT_BYTES
            fields = {"id": "e", "topic": "t", "data": "1", "name": "", "time": "", "total": total}
            self.direct.xadd(keyspace.queue(channel), fields, id=entry_id)
            begins = {} if has_first else {"first": entry_id, "first_total": before}
            self.direct.hset(name, mapping={"tail": entry_id, "total": total, **begins})

    def let_time_pass(self) -> None:
        """Returns in another millisecond by the clock of Redis."""
        now_ms = self.now_ms()
        while self.now_ms() == now_ms:
            pass

    def now_ms(self) -> int:
        """The time by the clock of Redis."""
        seconds, microseconds = self.direct.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def age(self, channel: str, *, by_ms: int) -> None:
        """Makes the channel's times earlier, its due time too, as if it had been left alone for so long."""
        name = keyspace.channel(channel)
        for due in keyspace.DUE:
            self.direct.zadd(due, {channel: -by_ms}, incr=True, xx=True)
        for field in ("created_at_ms", "released_at_ms"):
            if (at := self.direct.hget(name, field)) is not None:
                self.direct.hset(name, field, int(at) - by_ms)

    def due_ms(self, channel: str) -> float | None:
        """The score of the channel's due time."""
        scores = [self.direct.zscore(due, channel) for due in keyspace.DUE]
        return next((float(score) for score in scores if score is not None), None)

    def kill(self, instance: str, *, before_ms: int = 0) -> None:
        """Ends the instance's heartbeat, as if the last one was so long ago."""
        self.direct.delete(keyspace.heartbeat(instance))
        self.direct.zadd(keyspace.LAST_SEEN, {instance: self.now_ms() - before_ms})

    def lose_all_but(self, channel: str, *kept: str) -> None:
        """Redis has lost the appends of all other entries, and with them what the channel knew of them."""
        name, queue = keyspace.channel(channel), keyspace.queue(channel)
        rows = dict(self.direct.xrange(queue))
        self.direct.delete(queue)
        self.direct.hdel(name, "tail", "total", "first", "first_total", "batch_until")
        for entry in kept:
            fields = rows[entry.encode()]
            self.direct.xadd(queue, fields, id=entry)
            self.direct.hset(name, mapping={"tail": entry, "total": fields[b"total"]})
        if kept:
            self.direct.hset(name, mapping={"first": kept[0], "first_total": 0})


def events(*numbers: int, size_bytes: int = 0) -> list[Event]:
    """Events whose ids are these numbers, each with data of about that size."""
    return [Event(id=str(n), topic="orders", data=b'"' + b"x" * size_bytes + b'"') for n in numbers]


def ids(notifications: list[Notification]) -> list[str]:
    return [notification.event_id for notification in notifications]
