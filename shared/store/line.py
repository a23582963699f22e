"""A connection to Redis of our own, for many commands at once: one write, and answers in the order they come.

redis-py spends several times as long on a command as Redis does. What it knows of an address, a password and
TLS is taken from its pool; for all but the commands of `Calls`, pub/sub for one, it is used as it is.

Behind sentinels the address is asked for whenever a connection is opened, and each second that it is used: a
primary whose place was given to another hears of that seconds later, and what it takes until then is lost.
Whatever kind of Redis it is: who answers that it may only read was the primary once, and is left.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

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

_BEHIND_SENTINELS = (SentinelManagedConnection, SentinelManagedSSLConnection)
_KNOWN = (Connection, SSLConnection, UnixDomainSocketConnection, *_BEHIND_SENTINELS)
_NOTHING_YET = object()
_ASK_AGAIN_S = 1.0


class Line:
    """One connection, opened when it is needed. One exchange at a time."""

    def __init__(self, like: AbstractConnection, *, sentinels: SentinelConnectionPool | None = None) -> None:
        self._like = like
        self._sentinels = sentinels
        self._wire: _Wire | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = 0.0

    @staticmethod
    def to(redis: Redis) -> "Line | None":
        """A line to where this client connects to; None if that is nothing we know how to reach."""
        pool = redis.connection_pool
        if pool.connection_class not in _KNOWN:
            return None
        sentinels = pool if isinstance(pool, SentinelConnectionPool) else None
        return Line(pool.make_connection(), sentinels=sentinels)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in order; an error of Redis is one of them, as redis-py's exception.

        Raises redis-py's ConnectionError or TimeoutError, and then it is not known what was carried out.
        """
        if self._wire is None or self._wire.is_lost:
            self._wire = await self._opened()
        if self._sentinels is not None:
            self._ask_again(self._sentinels, self._wire)
        return await self._wire.exchange(commands, timeout_s=self._like.socket_timeout)

    async def _opened(self) -> "_Wire":
        wire = _Wire()
        try:
            if self._sentinels is not None:
                await self._find_primary(self._sentinels)
            async with asyncio.timeout(self._like.socket_connect_timeout):
                await self._connect(wire)
                await self._introduce(wire)
        except BaseException as fault:
            wire.cut()
            if isinstance(fault, TimeoutError):
                raise RedisTimeoutError("no connection within the time-out") from None
            if isinstance(fault, OSError):
                raise RedisConnectionError(f"no connection: {fault.strerror}") from None
            raise
        return wire

    async def _find_primary(self, sentinels: SentinelConnectionPool) -> None:
        assert isinstance(self._like, Connection)
        self._asked_s = asyncio.get_running_loop().time()
        try:
            self._like.host, self._like.port = await sentinels.get_master_address()
        except ResponseError as fault:
            # Whoever says this is no sentinel, or lets us not ask.
            raise RedisConnectionError(f"no sentinel: {type(fault).__name__}") from None

    def _ask_again(self, sentinels: SentinelConnectionPool, wire: "_Wire") -> None:
        """Nobody waits for it: sentinels that are away are no reason to stop."""
        loop = asyncio.get_running_loop()
        if self._asking is None and loop.time() > self._asked_s + _ASK_AGAIN_S:
            self._asking = loop.create_task(self._leave_old_primary(sentinels, wire))

    async def _leave_old_primary(self, sentinels: SentinelConnectionPool, wire: "_Wire") -> None:
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

    async def _connect(self, wire: "_Wire") -> None:
        like, loop = self._like, asyncio.get_running_loop()
        if isinstance(like, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: wire, like.path)
            return
        assert isinstance(like, Connection)
        tls = like.ssl_context.get() if isinstance(like, SSLConnection) else None
        await loop.create_connection(lambda: wire, like.host, like.port, ssl=tls)

    async def _introduce(self, wire: "_Wire") -> None:
        like = self._like
        commands: list[Command] = []
        if like.password:
            commands.append(("AUTH", *filter(None, [like.username]), like.password))
        if like.db:
            commands.append(("SELECT", like.db))
        for answer in await wire.exchange(commands, timeout_s=None) if commands else ():
            if isinstance(answer, RedisError):
                raise answer
        if self._sentinels is not None:
            await _check_role(wire)


async def _check_role(wire: "_Wire") -> None:
    """Sentinels can be behind. Who may not ask for the role finds out by the first write."""
    [role] = await wire.exchange([("ROLE",)], timeout_s=None)
    if isinstance(role, NoPermissionError):
        return
    if isinstance(role, RedisError):
        raise role
    if role[0] != b"master":
        raise RedisConnectionError("the sentinels named a server that is not the primary")


def _packed(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # it takes any number of them
    return packed


class _Wire(asyncio.Protocol):
    """The bytes of one connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=self._error, notEnoughData=_NOTHING_YET)
        self._answers: list[Any] = []
        self._wanted = 0
        self._done: asyncio.Future[None] | None = None
        self._was_demoted = False
        self.is_lost = False

    async def exchange(self, commands: Sequence[Command], *, timeout_s: float | None) -> list[Any]:
        assert self._transport is not None
        assert self._done is None, "one exchange at a time"
        loop = asyncio.get_running_loop()
        self._answers, self._wanted, self._done = [], len(commands), loop.create_future()
        late = loop.call_later(timeout_s, self._late) if timeout_s else None
        try:
            self._transport.write(b"".join([_packed(command) for command in commands]))
            await self._done
        except asyncio.CancelledError:
            # Answers that nobody waits for would be taken for those of the next exchange.
            self.cut()
            raise
        finally:
            self._done = None
            if late is not None:
                late.cancel()
        if self._was_demoted:
            self.cut()
        return self._answers

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

    def _late(self) -> None:
        self._fail(RedisTimeoutError("no answer within the time-out"))
        self.cut()

    def _fail(self, fault: RedisError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(fault)

    # As a protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's has another family tree.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _NOTHING_YET:
                self._answers.append(answer)
        except hiredis.ProtocolError as fault:
            self._fail(RedisConnectionError(f"not Redis' protocol: {fault}"))
            self.cut()
            return
        if self._done is not None and len(self._answers) >= self._wanted and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        with suppress(asyncio.InvalidStateError):
            self._fail(RedisConnectionError("the connection was closed"))
