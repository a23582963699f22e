"""A Redis Cluster for redis-py's plain client: a pool whose connections go to any one of the nodes.

That is enough for pub/sub, which reaches every node. `shared.redis.cluster` routes commands, and keeps the
nodes of this pool up to date.
"""

import random
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.urls import Address


class ClusterPool(BlockingConnectionPool):
    """A connection that cannot reach its node goes to another one."""

    def __init__(self, nodes: Iterable[Address], *, tls: bool, **options: Any) -> None:
        super().__init__(connection_class=_TlsNodeConnection if tls else _NodeConnection, **options)
        self._tls = tls
        self._seeds = list(nodes)
        self._nodes = list(self._seeds)
        random.shuffle(self._nodes)
        self.connection_kwargs["connection_pool"] = weakref.proxy(self)

    @property
    def nodes(self) -> list[Address]:
        """All known nodes, in the order in which to try them. The URL's nodes always stay."""
        return [*self._nodes, *(seed for seed in self._seeds if seed not in self._nodes)]

    def learn(self, nodes: Iterable[Address]) -> None:
        """Replaces the nodes. Those that were known keep their order, before the new ones."""
        current = dict.fromkeys(nodes)
        kept = [node for node in self._nodes if node in current]
        self._nodes = [*kept, *(node for node in current if node not in kept)]

    def avoid(self, node: Address) -> None:
        """Puts an unreachable node last."""
        if node in self._nodes:
            self._nodes.remove(node)
        self._nodes.append(node)

    def client_of(self, node: Address) -> Redis:
        """A client of this one node, with the cluster's credentials and timeouts."""
        host, port = node
        own: Mapping[str, Any] = {k: v for k, v in self.connection_kwargs.items() if k != "connection_pool"}
        connection_class = SSLConnection if self._tls else Connection
        return Redis.from_pool(ConnectionPool(connection_class=connection_class, host=host, port=port, **own))


class _AnyNodeConnection(AbstractConnection):
    """Chooses its node when it connects."""

    host: str
    port: int

    def __init__(self, *, connection_pool: ClusterPool, **options: Any) -> None:
        self._pool = connection_pool
        super().__init__(**options)

    async def connect(self) -> None:
        if self.is_connected:
            return
        error: Exception = RedisConnectionError("the cluster has no node")
        for node in self._pool.nodes:
            self.host, self.port = node
            try:
                await super().connect()  # type: ignore[no-untyped-call]
            except (RedisConnectionError, RedisTimeoutError) as failure:
                error = failure
                self._pool.avoid(node)
            else:
                return
        raise error


class _NodeConnection(_AnyNodeConnection, Connection):
    pass


class _TlsNodeConnection(_AnyNodeConnection, SSLConnection):
    pass
