"""The primary behind sentinels: each new connection asks for its address, and a busy one asks every second.

A demoted primary learns it seconds after the sentinels, and loses what it accepts until then.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from shared.redis.connection import Abortable, Command, OnReplies, RedisConnection, RedisProtocol
from shared.redis.tls import PrimaryTlsConnection, TlsConnection
from shared.redis.urls import Sentinels

# Several sentinels are asked one after the other before a connection can be opened.
_SENTINEL_TIMEOUT_S = 1.0
_ASK_INTERVAL_S = 1.0


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's pool, but bounded, and it closes all connections when the sentinels name another primary.

    That includes the subscriptions: they would stay with a server to which no process publishes.
    """

    def __init__(self, service: Sentinels, options: dict[str, Any]) -> None:
        tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        own: dict[str, Any] = {**service.sentinel_options, **tls, "ssl": service.tls}
        own |= {"lib_name": None, "lib_version": None}
        own |= {"socket_timeout": _SENTINEL_TIMEOUT_S, "socket_connect_timeout": _SENTINEL_TIMEOUT_S}
        self._manager = Sentinel(service.sentinels, sentinel_kwargs=own)
        if service.tls:
            for sentinel in self._manager.sentinels:
                sentinel.connection_pool.connection_class = TlsConnection
        self.subscriptions = WeakSet[Abortable]()
        connection_class = PrimaryTlsConnection if service.tls else SentinelManagedConnection
        super().__init__(  # type: ignore[no-untyped-call]
            service.service, self._manager, connection_class=connection_class, **options
        )

    async def get_master_address(self) -> tuple[str, int]:
        before = self.master_address
        address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if before not in (None, address):
            for subscription in list(self.subscriptions):
                subscription.abort()
            await super().disconnect()
        return address

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self._manager.sentinels:
                await sentinel.aclose()


class SentinelConnection(RedisConnection):
    """A connection to the current primary."""

    def __init__(self, pool: SentinelPool) -> None:
        settings = pool.make_connection()  # type: ignore[no-untyped-call]
        assert isinstance(settings, TcpConnection)
        super().__init__(settings)
        self._address = settings
        self._pool = pool
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = 0.0

    def _write(self, protocol: RedisProtocol, commands: Sequence[Command], on_replies: OnReplies) -> None:
        loop = asyncio.get_running_loop()
        # In the background: unreachable sentinels must not stop a primary that serves.
        if self._asking is None and loop.time() > self._asked_s + _ASK_INTERVAL_S:
            self._asking = loop.create_task(self._leave_old_primary(protocol))
        super()._write(protocol, commands, on_replies)

    async def _open(self) -> RedisProtocol:
        await self._find_primary()
        return await super()._open()

    async def _handshake(self, protocol: RedisProtocol) -> None:
        await super()._handshake(protocol)
        # Sentinels can be behind. A user without the right to ask ROLE finds out by the first write.
        [role] = await protocol.exchange([("ROLE",)])
        if isinstance(role, NoPermissionError):
            return
        if isinstance(role, RedisError):
            raise role
        if role[0] != b"master":
            raise RedisConnectionError("the sentinels named a server that is not the primary")

    async def _find_primary(self) -> None:
        self._asked_s = asyncio.get_running_loop().time()
        try:
            self._address.host, self._address.port = await self._pool.get_master_address()
        except ResponseError as error:
            # The server is no sentinel, or refuses to be asked.
            raise RedisConnectionError(f"no sentinel: {type(error).__name__}") from None

    async def _leave_old_primary(self, protocol: RedisProtocol) -> None:
        before = self._address.host, self._address.port
        try:
            await self._find_primary()
            if (self._address.host, self._address.port) != before:
                protocol.abort()
        except (RedisError, OSError):
            pass
        finally:
            self._asking = None
