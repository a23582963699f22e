"""The one place that says how this project talks to Redis: bounded, timed, and never silently retried.

A retry after a lost answer would append a notification twice: whoever calls decides what may be tried again.
"""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import RedisError

from shared.redis.cluster_pool import ClusterPool
from shared.redis.urls import BAD_OPTION, Cluster, Sentinels, Server, parsed

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
# Several are asked, one after the other, before a connection can be made.
SENTINEL_TIMEOUT_S = 1.0
HEALTH_CHECK_INTERVAL_S = 15
MAX_CONNECTIONS = 64


def connect(url: str) -> Redis:
    """A client of the Redis at `url`, with a pool of its own; it connects when first used.

    Behind sentinels each connection goes to the server that is the primary then. Of a cluster it goes to any
    node, which is enough for pub/sub: `shared.redis.cluster` brings commands to the right one.
    At most MAX_CONNECTIONS are open; who finds all of them busy waits, up to ANSWER_TIMEOUT_S. Every command
    is sent once: what fails raises redis' ConnectionError or TimeoutError. A pub/sub's `listen()` would end
    after ANSWER_TIMEOUT_S of silence: poll `get_message(timeout=...)` instead.

    Raises ValueError, in a sentence that shows no part of the URL, when the URL is malformed.
    """
    return Redis.from_pool(_pool(url))


def checked_url(url: str) -> str:
    """The URL as it was given, if `connect` would take it; raises the same ValueError if not."""
    _pool(url)
    return url


def _pool(url: str) -> ConnectionPool:
    where = parsed(url)
    try:
        pool = _pool_to(where)
        # Otherwise an option that redis-py does not know would be found out by the first command.
        pool.make_connection()
    except (TypeError, ValueError, RedisError):
        raise ValueError(BAD_OPTION) from None
    return pool


def _pool_to(where: Server | Cluster | Sentinels) -> ConnectionPool:
    options = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": ANSWER_TIMEOUT_S,
        "decode_responses": False,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": HEALTH_CHECK_INTERVAL_S,
        "retry": None,
        # A certificate that somebody trusted gave to somebody else proves nothing.
        **({"ssl_check_hostname": True} if where.tls else {}),
        **({"socket_keepalive": True} if where.tcp else {}),
        **where.options,
        # Pub/sub answers in another form in the third, and our own lines speak the second.
        "protocol": 2,
    }
    match where:
        case Cluster(nodes=nodes, tls=tls):
            return ClusterPool(nodes, tls=tls, **options)
        case Sentinels():
            return _SentinelPool(where, options)
        case _:
            return BlockingConnectionPool(**options)


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's, but it waits when too many are open, and leaves a former primary with all connections.

    Whoever listens for wakeups would otherwise go on at a server that nobody publishes to any more.
    """

    def __init__(self, where: Sentinels, options: dict[str, Any]) -> None:
        tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        own: dict[str, Any] = {**where.own_options, **tls, "ssl": where.tls}
        own |= {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
        self._manager = Sentinel(where.sentinels, sentinel_kwargs=own)
        kind = SentinelManagedSSLConnection if where.tls else SentinelManagedConnection
        super().__init__(  # type: ignore[no-untyped-call]
            where.service, self._manager, connection_class=kind, **options
        )

    async def get_master_address(self) -> tuple[str, int]:
        before = self.master_address
        found: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if before not in (None, found):
            await super().disconnect()
        return found

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self._manager.sentinels:
                await sentinel.aclose()
