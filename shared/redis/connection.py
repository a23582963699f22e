"""One connection to Redis for many commands at once: one write, and replies in the same order.

redis-py spends several times as long on a command as Redis does. Address, password and TLS come from
redis-py's pool. Pub/sub uses a connection that is opened here too (`subscription.py`).

A connection on which a server replied READONLY is closed: the server was demoted, and the next connection may
reach the new primary.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import hiredis
from redis.asyncio.cluster import ClusterParser
from redis.asyncio.connection import AbstractConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TcpConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.tls import TlsConnection

Argument: TypeAlias = str | bytes | int | float
Arguments: TypeAlias = tuple[Argument, ...]
OnReplies: TypeAlias = Callable[[list[Any] | Exception], None]
"""Gets one reply for each command, or the exception after which it is unknown what was executed."""
OnReply: TypeAlias = Callable[[Any], None]
"""Gets the reply to one command, or the exception that took its place."""

INCOMPLETE = object()
"""What our hiredis readers return when the next reply is not complete."""


# A command as it is written to Redis. It takes any number of arguments.
pack = cast(Callable[[Arguments], bytes], hiredis.pack_command)


@dataclass(slots=True, eq=False)
class Command:
    """A queued command, and the future for its reply or a callback. `source` is the text of the script that
    EVALSHA names.

    It is packed just before it is sent: until then many commands may share one large argument. Arguments may
    be added until it `is_closed`: packed, or failed without being sent.
    """

    arguments: Arguments
    reply: asyncio.Future[Any] | None
    source: str | None = None
    packed: bytes = b""
    on_reply: OnReply | None = None
    is_closed: bool = False


@runtime_checkable
class Connection(Protocol):
    """A connection to one Redis, with one batch under way at a time."""

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        """Sends the commands in order. An error reply is one of the replies."""

    async def hand_over_to(self, protocol: asyncio.Protocol) -> None:
        """Opens another connection, which is this protocol's from then on. Raises redis-py's errors."""


class Abortable(Protocol):
    """Whatever has a connection that a pool may have to break."""

    def abort(self) -> None:
        """Closes the connection at once."""


class RedisConnection:
    """A TCP, TLS or Unix connection, opened by the first `send` and again after a loss."""

    def __init__(self, settings: AbstractConnection) -> None:
        self._settings = settings
        self._protocol: RedisProtocol | None = None
        self._opening: asyncio.Task[None] | None = None

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        protocol = self._protocol
        if protocol is not None and not protocol.is_closed:
            self._write(protocol, commands, on_replies)
        else:
            self._opening = asyncio.get_running_loop().create_task(self._open_and_send(commands, on_replies))

    async def hand_over_to(self, protocol: asyncio.Protocol) -> None:
        (await self._open()).hand_over_to(protocol)

    def _write(self, protocol: "RedisProtocol", commands: Sequence[Command], on_replies: OnReplies) -> None:
        data = b"".join([command.packed or pack(command.arguments) for command in commands])
        protocol.send(data, len(commands), timeout_s=self._settings.socket_timeout, on_replies=on_replies)

    async def _open_and_send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        try:
            self._protocol = protocol = await self._open()
        except Exception as error:
            on_replies(error)
        else:
            self._write(protocol, commands, on_replies)
        finally:
            self._opening = None

    async def _open(self) -> "RedisProtocol":
        protocol = RedisProtocol()
        try:
            async with asyncio.timeout(self._settings.socket_connect_timeout):
                await self._connect(protocol)
                await self._handshake(protocol)
        except BaseException as error:
            protocol.abort()
            if isinstance(error, TimeoutError):
                tls = isinstance(self._settings, TlsConnection)
                hint = " (does the port speak TLS?)" if tls else ""
                raise RedisTimeoutError(f"no connection within the timeout{hint}") from None
            if isinstance(error, OSError):
                raise RedisConnectionError(f"no connection: {error.strerror}") from None
            raise
        return protocol

    async def _connect(self, protocol: "RedisProtocol") -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        if isinstance(settings, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: protocol, settings.path)
            return
        assert isinstance(settings, TcpConnection)
        tls = settings.tls() if isinstance(settings, TlsConnection) else None
        await loop.create_connection(lambda: protocol, settings.host, settings.port, ssl=tls)

    async def _handshake(self, protocol: "RedisProtocol") -> None:
        """Authenticates and selects the database."""
        settings = self._settings
        commands: list[Arguments] = []
        if settings.password:
            commands.append(("AUTH", *filter(None, [settings.username]), settings.password))
        if settings.db:
            commands.append(("SELECT", settings.db))
        for reply in await protocol.exchange(commands) if commands else ():
            if isinstance(reply, RedisError):
                raise reply


class RedisProtocol(asyncio.Protocol):
    """The bytes of one connection, one exchange at a time."""

    def __init__(self) -> None:
        # Kept: it is a system call to ask for it.
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=self._error, notEnoughData=INCOMPLETE)
        self._replies: list[Any] = []
        self._expected = 0
        self._on_replies: OnReplies | None = None
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_read_only = False
        self._farewell = "the connection was closed"
        self.is_closed = False

    def send(self, data: bytes, expected: int, *, timeout_s: float | None, on_replies: OnReplies) -> None:
        """Writes the data, then hands over the replies, or redis-py's ConnectionError or TimeoutError."""
        assert self._transport is not None
        assert self._on_replies is None, "one exchange at a time"
        if self.is_closed:
            # Lost between connect and first write: connection_lost already ran, and will not run again.
            on_replies(RedisConnectionError(self._farewell))
            return
        self._replies, self._expected, self._on_replies = [], expected, on_replies
        if timeout_s:
            self._deadline_s = self._loop.time() + timeout_s
            # One timer that rearms itself is cheaper than one for each exchange.
            self._timer = self._timer or self._loop.call_at(self._deadline_s, self._check_deadline)
        self._transport.write(data)

    async def exchange(self, commands: Sequence[Arguments]) -> list[Any]:
        """The replies to a few commands while the connection is being opened. Raises as `send` reports."""
        done = asyncio.get_running_loop().create_future()

        def on_replies(replies: list[Any] | Exception) -> None:
            if not done.done():
                done.set_result(replies)

        self.send(b"".join(map(pack, commands)), len(commands), timeout_s=None, on_replies=on_replies)
        replies: list[Any] | Exception = await done
        if isinstance(replies, Exception):
            raise replies
        return replies

    def hand_over_to(self, protocol: asyncio.Protocol) -> None:
        """Gives the connection to another protocol. Raises redis-py's ConnectionError if it is lost."""
        if self.is_closed or self._transport is None:
            raise RedisConnectionError("the connection was closed")
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)

    def abort(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def _error(self, text: str) -> Exception:
        # The cluster's parser has classes for redirections too.
        error: Exception = ClusterParser.parse_error(text)
        if isinstance(error, ReadOnlyError):
            self._is_read_only = True
        return error

    def _check_deadline(self) -> None:
        self._timer = None
        if self._on_replies is None:
            return
        if self._loop.time() < self._deadline_s:
            self._timer = self._loop.call_at(self._deadline_s, self._check_deadline)
        else:
            self.abort()
            self._finish(RedisTimeoutError("no reply within the timeout"))

    def _finish(self, replies: list[Any] | Exception) -> None:
        on_replies, self._on_replies = self._on_replies, None
        if on_replies is not None:
            on_replies(replies)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not INCOMPLETE:
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            self.abort()
            self._finish(RedisConnectionError(f"not the Redis protocol: {error}"))
            return
        if self._on_replies is None:
            self._keep_farewell()
        elif len(self._replies) >= self._expected:
            if self._is_read_only:
                self.abort()
            replies, self._replies = self._replies, []
            self._finish(replies)

    def _keep_farewell(self) -> None:
        """A server that turns a connection away says why, whatever it was asked, and closes it."""
        if self._replies and isinstance(self._replies[-1], Exception):
            self._farewell = str(self._replies[-1])

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._keep_farewell()
        self._finish(RedisConnectionError(self._farewell))
