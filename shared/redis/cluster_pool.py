"""A Redis Cluster as a plain client sees it: a pool whose connections go to any one of its nodes.

That is enough for pub/sub, which every node hears of. Commands are routed by `shared.redis.cluster`,
which also tells this pool which nodes there are.
"""

import random
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

Address = tuple[str, int]


class ClusterPool(BlockingConnectionPool):
    """Connections to nodes of one cluster: to another node each time that one cannot be reached."""

    def __init__(self, nodes: Iterable[Address], *, tls: bool, **options: Any) -> None:
        super().__init__(connection_class=_TlsNodeConnection if tls else _NodeConnection, **options)
        self._tls = tls
        self._seeds = list(nodes)
        self._nodes = list(self._seeds)
        random.shuffle(self._nodes)
        self.connection_kwargs["connection_pool"] = weakref.proxy(self)

    @property
    def nodes(self) -> list[Address]:
        """All nodes known, the best to ask first; what the URL named is never forgotten."""
        return [*self._nodes, *(seed for seed in self._seeds if seed not in self._nodes)]

    def learn(self, nodes: Iterable[Address]) -> None:
        """These are the nodes now; those that could be reached last come first."""
        there = dict.fromkeys(nodes)
        kept = [node for node in self._nodes if node in there]
        self._nodes = [*kept, *(node for node in there if node not in kept)]

    def avoid(self, node: Address) -> None:
        """It could not be reached: the others are asked before it."""
        if node in self._nodes:
            self._nodes.remove(node)
        self._nodes.append(node)

    def client_of(self, node: Address) -> Redis:
        """A client of this one node, with the cluster's credentials and time-outs."""
        host, port = node
        own: Mapping[str, Any] = {k: v for k, v in self.connection_kwargs.items() if k != "connection_pool"}
        kind = SSLConnection if self._tls else Connection
        return Redis.from_pool(ConnectionPool(connection_class=kind, host=host, port=port, **own))

    async def hang_up(self) -> None:
        """Breaks every connection: who listens subscribes anew, and looks at what it may have missed."""
        await self.disconnect()


class _ToAnyNode(AbstractConnection):
    """Finds its node when it connects."""

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
            except (RedisConnectionError, RedisTimeoutError) as failed:
                error = failed
                self._pool.avoid(node)
            else:
                return
        raise error


class _NodeConnection(_ToAnyNode, Connection):
    pass


class _TlsNodeConnection(_ToAnyNode, SSLConnection):
    pass
