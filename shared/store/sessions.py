"""Sessions: sockets that other clients can list, publish to and push to, on whichever edge they are.

A session's record and queue lie in its own slot, its id in its account's set, and its bindings in the routing
table of each account that they name. A session ends with its socket. After the crash of an edge its sessions
count as gone once the heartbeat has expired, and the reaper drops them.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from shared import telemetry
from shared.model.channels import instance_of
from shared.model.errors import DeadlinePassed
from shared.model.events import Event, Notification
from shared.model.idempotency import Deadline
from shared.model.sessions import EVERY_ACCOUNT, Dialect, Pushed, Session, SessionBinding
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups

# Room for a burst; the edge has a lower limit for slow readers. One script reads all of it.
_QUEUE_LIMIT = 500
_QUEUE_LIMIT_BYTES = 1024 * 1024
_PUSH_LIMIT = 100
_PAGE_SIZE = 500
_PUSH_TTL_MS = 5000
# How long a push waits for its edge, and the pauses between checks.
_PUSH_TIMEOUT_S = 2.0
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05

Encode = Callable[[Sequence[SessionBinding]], bytes]


class Sessions:
    """Keeps sessions. `encode` turns their bindings into what the routing table stores."""

    def __init__(self, redis: RedisCommands, routing: Routing, wakeups: Wakeups, *, encode: Encode) -> None:
        self._redis = redis
        self._routing = routing
        self._wakeups = wakeups
        self._replicas = Replicas(redis)
        self._encode = encode

    async def put(self, session: Session, wanted: Sequence[SessionBinding]) -> None:
        """Writes the session and its bindings. Every publish that begins afterwards honours them."""
        name = keyspace.session(session.id)
        by_account: dict[str, list[SessionBinding]] = {}
        for binding in wanted:
            by_account.setdefault(_table_of(binding.account), []).append(binding)
        # First, or the reaper would not find the session of an edge that was killed after the next lines.
        await self._redis.command("SADD", _held_with(session), session.id)
        before = (await self._redis.command("HGET", name, "accounts") or b"").decode().split()
        # Record the accounts before their tables name the session: `drop` must find all of them.
        await self._write(session, accounts=sorted({*before, *by_account}))
        await self._redis.command("SADD", keyspace.sessions(session.account_id), session.id)
        gone = [account for account in before if account not in by_account]
        await asyncio.gather(
            *(
                self._routing.put_session(account, session.id, self._encode(bindings))
                for account, bindings in by_account.items()
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
        """Deletes the session, and its fields in the routing tables."""
        accounts = await self._redis.command("HGET", keyspace.session(session.id), "accounts")
        for account in (accounts or b"").decode().split():
            await self._routing.drop_session(account, session.id)
        await self._redis.command("SREM", keyspace.sessions(session.account_id), session.id)
        names = [keyspace.session(session.id), keyspace.queue(session.id), keyspace.pushes(session.id)]
        await self._redis.script("session_drop", names, session.owner)
        await self._redis.command("SREM", _held_with(session), session.id)

    async def drop_some_of(self, instance: str, *, count: int) -> int:
        """Drops sessions of an instance that is dead, at most `count`; returns how many it has seen."""
        held = keyspace.held_sessions(instance)
        ids = [member.decode() for member in await self._redis.command("SRANDMEMBER", held, count)]
        await asyncio.gather(*(self._drop_of(instance, session_id) for session_id in ids))
        return len(ids)

    async def drop_unheld(self, instance: str, *, is_held: Callable[[str], bool]) -> int:
        """Drops sessions that Redis counts as this instance's, and that it does not hold; how many.

        Redis was restored from an older copy, in which their sockets were open. The instance is live, so no
        reaper would drop them.
        """
        held, cursor, dropped = keyspace.held_sessions(instance), b"0", 0
        while True:
            cursor, members = await self._redis.command("SSCAN", held, cursor, "COUNT", _PAGE_SIZE)
            unheld = [each for each in (member.decode() for member in members) if not is_held(each)]
            await asyncio.gather(*(self._drop_of(instance, session_id) for session_id in unheld))
            dropped += len(unheld)
            if int(cursor) == 0:
                return dropped

    async def _drop_of(self, instance: str, session_id: str) -> None:
        session = await self.read(session_id)
        if session is not None and instance_of(session.owner) == instance:
            await self.drop(session)
        else:
            await self._redis.command("SREM", keyspace.held_sessions(instance), session_id)

    async def index(self, session: Session) -> None:
        """Notes again which instance holds the session."""
        await self._redis.command("SADD", _held_with(session), session.id)

    def begin_append(
        self, session_id: str, account_id: str, events: Sequence[Event], *, deadline: Deadline | None = None
    ) -> asyncio.Future[Any]:
        """Appends as many as the queue has room for, and wakes the edge; the reply is for `end_append`."""
        names = [keyspace.session(session_id), keyspace.queue(session_id)]
        values: list[Argument] = []
        size = 0
        for e in events[:_QUEUE_LIMIT]:
            size += len(e.data)
            # The script would drop it, and what follows, but Redis has to read it first.
            if size > _QUEUE_LIMIT_BYTES:
                break
            values += (e.id, e.topic, e.data, e.name, e.time)
        limits = (_QUEUE_LIMIT, _QUEUE_LIMIT_BYTES)
        until_ms = "" if deadline is None else deadline.ms
        return self._redis.script("session_append", names, *limits, account_id, until_ms, *values)

    def end_append(self, reply: Sequence[Any], *, count: int) -> int:
        """How many of `count` events the queue has taken. Raises DeadlinePassed."""
        status, *queued = reply
        if status == b"late":
            raise DeadlinePassed
        if status != b"queued":
            return 0
        telemetry.dropped_for_slow_reader(count - queued[0])
        return int(queued[0])

    async def take(self, session: Session) -> list[Notification] | None:
        """Empties the session's queue, oldest first; None when Redis does not know the session."""
        names = [keyspace.session(session.id), keyspace.queue(session.id)]
        status, *entries = await self._redis.script("session_take", names, session.owner)
        return None if status != b"taken" else [_notification(*entry) for entry in entries]

    async def is_known(self, session_id: str) -> bool:
        """Whether Redis has the session's record."""
        return bool(await self._redis.command("EXISTS", keyspace.session(session_id)))

    async def find(self, session_id: str) -> Session | None:
        """The session, if its edge is live."""
        session = await self.read(session_id)
        return session if session and (await self._replicas.state(instance_of(session.owner))).live else None

    async def of_account(self, account_id: str) -> list[Session]:
        """The account's sessions on live edges, oldest first."""
        ids: set[bytes] = set()
        cursor: bytes | int | None = None
        while cursor is None or int(cursor):
            name = keyspace.sessions(account_id)
            cursor, members = await self._redis.command("SSCAN", name, cursor or 0, "COUNT", _PAGE_SIZE)
            ids.update(members)
        records = await asyncio.gather(*(self.read(member.decode()) for member in ids))
        sessions = [session for session in records if session is not None]
        live = await self._replicas.live_instances(session.owner for session in sessions)
        connected = (session for session in sessions if instance_of(session.owner) in live)
        return sorted(connected, key=lambda session: (session.connected_at_ms, session.id))

    async def push(self, session_id: str, data: bytes) -> Pushed:
        """Sends the data to this session unchanged, and waits up to 2 s until its edge has taken it."""
        push_id = secrets.token_hex(8)
        names = [keyspace.session(session_id), keyspace.pushes(session_id)]
        push = b"%b %b" % (push_id.encode(), data)
        status, *owner = await self._redis.script("session_push", names, push, _PUSH_TTL_MS, _PUSH_LIMIT)
        if status != b"put":
            return Pushed.GONE if status == b"absent" else Pushed.UNANSWERED
        self._wakeups.send(owner[0].decode(), session_id)
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + _PUSH_TIMEOUT_S, _FIRST_PAUSE_S
        while loop.time() < until_s:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if await self._redis.command("EXISTS", keyspace.pushed(session_id, push_id)):
                return Pushed.TAKEN
            if not await self.is_known(session_id):
                return Pushed.GONE
        # Withdraw the push: the response says that it was not delivered.
        await self._redis.command("LREM", keyspace.pushes(session_id), 1, push)
        return Pushed.UNANSWERED

    async def pushes(self, session_id: str) -> list[tuple[str, bytes]]:
        """Removes the session's pushes for its edge to send: id and data of each."""
        pushes = await self._redis.command("LPOP", keyspace.pushes(session_id), _PUSH_LIMIT)
        parts = (push.partition(b" ") for push in pushes or ())
        return [(push_id.decode(), data) for push_id, _, data in parts]

    async def mark_pushed(self, session_id: str, push_id: str) -> None:
        """Confirms that the push was written to the session's socket."""
        await self._redis.command("SET", keyspace.pushed(session_id, push_id), "1", "PX", _PUSH_TTL_MS)

    async def read(self, session_id: str) -> Session | None:
        """The session, whether or not its edge is live."""
        *fields, metadata = await self._redis.command("HMGET", keyspace.session(session_id), *_FIELDS)
        if fields[0] is None:
            return None
        dialect, account_id, owner, source, destination, connected_at_ms, bindings, name = (
            value.decode() for value in fields
        )
        return Session(
            id=session_id,
            dialect=Dialect(dialect),
            account_id=account_id,
            owner=owner,
            source=source,
            destination=destination,
            connected_at_ms=int(connected_at_ms),
            bindings=tuple(orjson.loads(bindings)),
            name=name,
            metadata=metadata,
        )


_FIELDS = (
    *("dialect", "account_id", "owner", "source", "destination", "connected_at_ms", "bindings", "name"),
    "metadata",
)


def _held_with(session: Session) -> str:
    return keyspace.held_sessions(instance_of(session.owner))


def _table_of(account: str) -> str:
    return keyspace.EVERY if account == EVERY_ACCOUNT else account


def _notification(entry: bytes, values: Sequence[bytes]) -> Notification:
    event_id, topic, data, name, time, account = values[1::2]
    texts = (name.decode(), time.decode())
    return Notification(
        entry.decode(), event_id.decode(), topic.decode(), data, *texts, account=account.decode()
    )
