"""The nodes of a Redis Cluster, and the options of connections to them, in the form of redis-py's pool.

Pub/sub reaches every node, so a subscription uses any one of them. `shared.redis.cluster` routes commands,
and keeps the nodes of this pool up to date.
"""

import random
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, ConnectionPool

from shared.redis.connection import Abortable
from shared.redis.tls import TlsConnection
from shared.redis.urls import Address


class ClusterPool(BlockingConnectionPool):
    """Makes no connections itself. What subscribes to a node registers in `subscriptions`."""

    def __init__(self, nodes: Iterable[Address], *, tls: bool, **options: Any) -> None:
        super().__init__(connection_class=TlsConnection if tls else Connection, **options)
        self.subscriptions = WeakSet[Abortable]()
        self._seeds = list(nodes)
        self._nodes = list(self._seeds)
        random.shuffle(self._nodes)

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
        options = {**self.connection_kwargs, "host": host, "port": port}
        return Redis.from_pool(ConnectionPool(connection_class=self.connection_class, **options))

    def break_subscriptions(self) -> None:
        """Closes all subscriptions: each is opened again, and its listener resyncs."""
        for subscription in list(self.subscriptions):
            subscription.abort()
