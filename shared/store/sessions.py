"""Sessions: sockets that others can list, publish to and push to, wherever they are held.

A session's record and queue lie in its own slot, its mention in its account's, and what it asks for in the
table of each account that it asks about. Nothing of it survives its socket; what an edge that was killed
left behind counts as gone when its heartbeat has run out, and the reaper takes it away.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import orjson

from shared import telemetry
from shared.model.channels import instance_of
from shared.model.events import Event, Notification
from shared.model.sessions import EVERY_ACCOUNT, Dialect, Pushed, Session, SessionBinding
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.queues import Appended
from shared.store.replicas import Replicas
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups

# A burst may be larger than what waits for a slow reader: its edge sorts that out.
_QUEUE_LIMIT = 1000
_PUSHES = 100
_PUSH_TTL_MS = 5000
_PUSH_S = 2.0
_FIRST_LOOK_S = 0.002
_LONGEST_PAUSE_S = 0.05

Store = Callable[[Sequence[SessionBinding]], bytes]


class Sessions:
    """Keeps sessions. `stored` turns what one asks for into what stands in the table."""

    def __init__(self, redis: RedisCommands, routing: Routing, wakeups: Wakeups, *, stored: Store) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups
        self._replicas = Replicas(redis)
        self._stored = stored

    async def put(self, session: Session, wanted: Sequence[SessionBinding]) -> None:
        """Writes the session as it is now. When this returns the next publish honours what it asks for."""
        name = keyspace.session(session.id)
        by_account: dict[str, list[SessionBinding]] = {}
        for one in wanted:
            by_account.setdefault(_routes_of(one.account), []).append(one)
        before = (await self._redis.command("HGET", name, "accounts") or b"").decode().split()
        # All that it is mentioned by stands in the record before it is mentioned there.
        await self._write(session, accounts=sorted({*before, *by_account}))
        await self._redis.command("SADD", keyspace.sessions(session.account_id), session.id)
        gone = [account for account in before if account not in by_account]
        await asyncio.gather(
            *(
                self._routing.put_session(account, session.id, self._stored(its))
                for account, its in by_account.items()
            ),
            *(self._routing.drop_session(account, session.id) for account in gone),
        )
        if gone:
            await self._write(session, accounts=sorted(by_account))

    async def _write(self, session: Session, *, accounts: Sequence[str]) -> None:
        fields = (
            *("dialect", session.dialect, "account_id", session.account_id, "owner", session.owner),
            *("source", session.source, "destination", session.destination),
            *("connected_at_ms", session.connected_at_ms, "bindings", orjson.dumps(session.bindings)),
            *("name", session.name, "metadata", session.metadata, "accounts", " ".join(accounts)),
        )
        await self._redis.command("HSET", keyspace.session(session.id), *fields)

    async def drop(self, session: Session) -> None:
        """Forgets the session and all that mentions it."""
        accounts = await self._redis.command("HGET", keyspace.session(session.id), "accounts")
        for account in (accounts or b"").decode().split():
            await self._routing.drop_session(account, session.id)
        await self._redis.command("SREM", keyspace.sessions(session.account_id), session.id)
        i = session.id
        names = [keyspace.session(i), keyspace.queue(i), keyspace.pushes(i)]
        await self._redis.script("session_drop", names, session.owner)

    async def append(self, session_id: str, account_id: str, events: Sequence[Event]) -> tuple[Appended, int]:
        """Queues what fits, and wakeups the edge that holds the socket; tells how many fitted."""
        names = [keyspace.session(session_id), keyspace.queue(session_id)]
        values = [part for e in events for part in (e.id, e.topic, e.data, e.name, e.time)]
        word, *found = await self._redis.script("session_append", names, _QUEUE_LIMIT, account_id, *values)
        if word != b"queued":
            return Appended.ABSENT, 0
        [fitted] = found
        telemetry.dropped_for_slow_reader(len(events) - fitted)
        return Appended.QUEUED, fitted

    async def take(self, session: Session) -> list[Notification] | None:
        """What waits for it, oldest first, and no more from now on; None when Redis knows no such session."""
        names = [keyspace.session(session.id), keyspace.queue(session.id)]
        word, *entries = await self._redis.script("session_take", names, session.owner)
        return None if word != b"taken" else [_notification(*entry) for entry in entries]

    async def is_known(self, session_id: str) -> bool:
        """Does its record stand in Redis?"""
        return bool(await self._redis.command("EXISTS", keyspace.session(session_id)))

    async def find(self, session_id: str) -> Session | None:
        """The session, if an edge that lives holds it."""
        found = await self._read(session_id)
        return found if found and (await self._replicas.seen(instance_of(found.owner))).live else None

    async def of_account(self, account_id: str) -> list[Session]:
        """The account's sessions that live, oldest first."""
        ids = await self._redis.command("SMEMBERS", keyspace.sessions(account_id))
        found = await asyncio.gather(*(self._read(member.decode()) for member in ids))
        sessions = [session for session in found if session is not None]
        instances = sorted({instance_of(session.owner) for session in sessions})
        seen = await asyncio.gather(*map(self._replicas.seen, instances))
        live = {instance for instance, its in zip(instances, seen, strict=True) if its.live}
        alive = (session for session in sessions if instance_of(session.owner) in live)
        return sorted(alive, key=lambda session: (session.connected_at_ms, session.id))

    async def all(self) -> AsyncIterator[list[Session]]:
        """Every session that Redis knows, living or not, in lots."""
        async for names in self._redis.scan(keyspace.session("*")):
            found = await asyncio.gather(*(self._read(keyspace.id_in(name)) for name in names))
            yield [session for session in found if session is not None]

    async def push(self, session_id: str, data: bytes) -> Pushed:
        """Has the data sent to this one session as it is, and waits until its edge took it, or for 2 s."""
        push_id = secrets.token_hex(8)
        names = [keyspace.session(session_id), keyspace.pushes(session_id)]
        pushed = b"%b %b" % (push_id.encode(), data)
        word, *owner = await self._redis.script("session_push", names, pushed, _PUSH_TTL_MS, _PUSHES)
        if word != b"put":
            return Pushed.GONE if word == b"gone" else Pushed.UNANSWERED
        self._wakeups.send(owner[0].decode(), session_id)
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + _PUSH_S, _FIRST_LOOK_S
        while loop.time() < until_s:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if await self._redis.command("EXISTS", keyspace.pushed(session_id, push_id)):
                return Pushed.TAKEN
            if not await self.is_known(session_id):
                return Pushed.GONE
        # From here on nobody waits for it.
        await self._redis.command("LREM", keyspace.pushes(session_id), 1, pushed)
        return Pushed.UNANSWERED

    async def pushes(self, session_id: str) -> list[tuple[str, bytes]]:
        """Data that was pushed to the session and is now its edge's to send, each with the push's id."""
        found = await self._redis.command("LPOP", keyspace.pushes(session_id), _PUSHES)
        parted = (pushed.partition(b" ") for pushed in found or ())
        return [(push_id.decode(), data) for push_id, _, data in parted]

    async def mark_pushed(self, session_id: str, push_id: str) -> None:
        """Says that it was taken: written to the session's socket."""
        await self._redis.command("SET", keyspace.pushed(session_id, push_id), "1", "PX", _PUSH_TTL_MS)

    async def _read(self, session_id: str) -> Session | None:
        found = await self._redis.command("HMGET", keyspace.session(session_id), *_FIELDS)
        if found[0] is None:
            return None
        dialect, account_id, owner, source, destination, connected_at_ms, bindings, name = (
            value.decode() for value in found[:-1]
        )
        session = Session(
            id=session_id,
            dialect=Dialect(dialect),
            account_id=account_id,
            owner=owner,
            source=source,
            destination=destination,
            connected_at_ms=int(connected_at_ms),
            name=name,
            metadata=found[-1],
        )
        return replace(session, bindings=tuple(orjson.loads(bindings)))


_FIELDS = (
    *("dialect", "account_id", "owner", "source", "destination", "connected_at_ms", "bindings", "name"),
    "metadata",
)


def _routes_of(account: str) -> str:
    return keyspace.EVERY if account == EVERY_ACCOUNT else account


def _notification(entry: bytes, values: Sequence[bytes]) -> Notification:
    return Notification(
        entry_id=entry.decode(),
        event_id=values[1].decode(),
        topic=values[3].decode(),
        data=values[5],
        name=values[7].decode(),
        time=values[9].decode(),
        account=values[11].decode(),
    )
