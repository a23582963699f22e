"""A connection to Redis of our own, for many commands at once: one write, and answers in the order they come.

redis-py spends several times as long on a command as Redis does. What it knows of an address, a password and
TLS is taken from its pool; for all but the commands of `Pipeline`, pub/sub for one, it is used as it is.

Behind sentinels the address is asked for whenever a connection is opened, and each second that it is used: a
primary whose place was given to another hears of that seconds later, and what it takes until then is lost.
Whatever kind of Redis it is: who answers that it may only read was the primary once, and is left.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterParser
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[str | bytes | int | float, ...]
# Who is told the answers, or what went wrong; then it is not known what was carried out.
Then: TypeAlias = Callable[[list[Any] | Exception], None]

_BEHIND_SENTINELS = (SentinelManagedConnection, SentinelManagedSSLConnection)
_KNOWN = (Connection, SSLConnection, UnixDomainSocketConnection, *_BEHIND_SENTINELS)
_NOTHING_YET = object()
_ASK_AGAIN_S = 1.0


def packed(command: Command) -> bytes:
    """A command as it is written to Redis."""
    written: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # it takes any number of them
    return written


@dataclass(slots=True, eq=False)
class Call:
    """A command, and who waits for its answer. `source` is the text of the script that it calls by hash.

    It is packed when it is about to be sent: many calls may share one large argument until then.
    """

    command: Command
    answer: asyncio.Future[Any]
    source: str | None = None
    _packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        if self._packed is None:
            self._packed = packed(self.command)
        return self._packed

    def replace(self, command: Command) -> None:
        """Asks this instead."""
        self.command, self._packed = command, None


class Way(Protocol):
    """To one Redis."""

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        """Sends them in order, and tells the answers; an error of Redis is one of them. One lot at a time."""


def connection_to(redis: Redis) -> Way:
    """A line of our own to where this client connects to; the client itself if that is nothing we know how
    to reach."""
    pool = redis.connection_pool
    if pool.connection_class not in _KNOWN:
        return ClientConnection(redis)
    sentinels = pool if isinstance(pool, SentinelConnectionPool) else None
    return Line(pool.make_connection(), sentinels=sentinels)


class ClientConnection:
    """redis-py's own pipelines."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sending: asyncio.Task[None] | None = None

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        self._sending = asyncio.get_running_loop().create_task(self._send(calls, then))

    async def _send(self, calls: Sequence[Call], then: Then) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.command)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            then(error)
        else:
            then(answers)


class Line:
    """One connection, opened when it is needed."""

    def __init__(self, like: AbstractConnection, *, sentinels: SentinelConnectionPool | None = None) -> None:
        self._like = like
        self._sentinels = sentinels
        self._wire: _RedisProtocol | None = None
        self._opening: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = 0.0

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        if self._wire is not None and not self._wire.is_lost:
            self._send(self._wire, calls, then)
        else:
            self._opening = asyncio.get_running_loop().create_task(self._open_and_send(calls, then))

    def _send(self, wire: "_RedisProtocol", calls: Sequence[Call], then: Then) -> None:
        if self._sentinels is not None:
            self._ask_again(self._sentinels, wire)
        text = b"".join([call.packed for call in calls])
        wire.begin(text, len(calls), timeout_s=self._like.socket_timeout, then=then)

    async def _open_and_send(self, calls: Sequence[Call], then: Then) -> None:
        try:
            self._wire = wire = await self._opened()
        except Exception as error:
            then(error)
        else:
            self._send(wire, calls, then)
        finally:
            self._opening = None

    async def _opened(self) -> "_RedisProtocol":
        wire = _RedisProtocol()
        try:
            if self._sentinels is not None:
                await self._find_primary(self._sentinels)
            async with asyncio.timeout(self._like.socket_connect_timeout):
                await self._connect(wire)
                await self._introduce(wire)
        except BaseException as error:
            wire.cut()
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("no connection within the time-out") from None
            if isinstance(error, OSError):
                raise RedisConnectionError(f"no connection: {error.strerror}") from None
            raise
        return wire

    async def _find_primary(self, sentinels: SentinelConnectionPool) -> None:
        assert isinstance(self._like, Connection)
        self._asked_s = asyncio.get_running_loop().time()
        try:
            self._like.host, self._like.port = await sentinels.get_master_address()
        except ResponseError as error:
            # Whoever says this is no sentinel, or lets us not ask.
            raise RedisConnectionError(f"no sentinel: {type(error).__name__}") from None

    def _ask_again(self, sentinels: SentinelConnectionPool, wire: "_RedisProtocol") -> None:
        """Nobody waits for it: sentinels that are away are no reason to stop."""
        loop = asyncio.get_running_loop()
        if self._asking is None and loop.time() > self._asked_s + _ASK_AGAIN_S:
            self._asking = loop.create_task(self._leave_old_primary(sentinels, wire))

    async def _leave_old_primary(self, sentinels: SentinelConnectionPool, wire: "_RedisProtocol") -> None:
        assert isinstance(self._like, Connection)
        before = self._like.host, self._like.port
        try:
            await self._find_primary(sentinels)
            if (self._like.host, self._like.port) != before:
                wire.cut()
        except (RedisError, OSError, TimeoutError):
            pass
        finally:
            self._asking = None

    async def _connect(self, wire: "_RedisProtocol") -> None:
        like, loop = self._like, asyncio.get_running_loop()
        if isinstance(like, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: wire, like.path)
            return
        assert isinstance(like, Connection)
        tls = like.ssl_context.get() if isinstance(like, SSLConnection) else None
        await loop.create_connection(lambda: wire, like.host, like.port, ssl=tls)

    async def _introduce(self, wire: "_RedisProtocol") -> None:
        like = self._like
        commands: list[Command] = []
        if like.password:
            commands.append(("AUTH", *filter(None, [like.username]), like.password))
        if like.db:
            commands.append(("SELECT", like.db))
        for answer in await wire.exchange(commands) if commands else ():
            if isinstance(answer, RedisError):
                raise answer
        if self._sentinels is not None:
            await _check_role(wire)


async def _check_role(wire: "_RedisProtocol") -> None:
    """Sentinels can be behind. Who may not ask for the role finds out by the first write."""
    [role] = await wire.exchange([("ROLE",)])
    if isinstance(role, NoPermissionError):
        return
    if isinstance(role, RedisError):
        raise role
    if role[0] != b"master":
        raise RedisConnectionError("the sentinels named a server that is not the primary")


class _RedisProtocol(asyncio.Protocol):
    """The bytes of one connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=self._error, notEnoughData=_NOTHING_YET)
        self._answers: list[Any] = []
        self._wanted = 0
        self._then: Then | None = None
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._was_demoted = False
        self.is_lost = False

    def begin(self, text: bytes, wanted: int, *, timeout_s: float | None, then: Then) -> None:
        """Writes the text, and tells the answers, or redis-py's ConnectionError or TimeoutError."""
        assert self._transport is not None
        assert self._then is None, "one exchange at a time"
        if self.is_lost:
            # It went in the moment in which it was opened: nobody will say so any more.
            then(RedisConnectionError("the connection was closed"))
            return
        self._answers, self._wanted, self._then = [], wanted, then
        if timeout_s:
            loop = asyncio.get_running_loop()
            self._due_s = loop.time() + timeout_s
            # One timer, which looks again when it was early, is cheaper than one for each exchange.
            self._timer = self._timer or loop.call_at(self._due_s, self._look_at_time)
        self._transport.write(text)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answers; raises what went wrong."""
        done = asyncio.get_running_loop().create_future()

        def then(answers: list[Any] | Exception) -> None:
            if not done.done():
                done.set_result(answers)

        self.begin(b"".join(map(packed, commands)), len(commands), timeout_s=None, then=then)
        answers: list[Any] | Exception = await done
        if isinstance(answers, Exception):
            raise answers
        return answers

    def cut(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def _error(self, text: str) -> Exception:
        # Redirections of a cluster have classes of their own there.
        error: Exception = ClusterParser.parse_error(text)
        if isinstance(error, ReadOnlyError):
            self._was_demoted = True
        return error

    def _look_at_time(self) -> None:
        self._timer = None
        if self._then is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due_s:
            self._timer = loop.call_at(self._due_s, self._look_at_time)
        else:
            self.cut()
            self._tell(RedisTimeoutError("no answer within the time-out"))

    def _tell(self, answers: list[Any] | Exception) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(answers)

    # As a protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's has another family tree.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _NOTHING_YET:
                self._answers.append(answer)
        except hiredis.ProtocolError as error:
            self.cut()
            self._tell(RedisConnectionError(f"not Redis' protocol: {error}"))
            return
        if self._then is not None and len(self._answers) >= self._wanted:
            if self._was_demoted:
                self.cut()
            self._tell(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._tell(RedisConnectionError("the connection was closed"))
