"""Pub/sub over a connection of its own, read by callbacks: a message costs no task and no coroutine.

All messages of one read from the socket are handed over together. A subscription breaks when its connection
does, when the server stops answering pings, and when the pool breaks it on purpose; then it is opened again.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.cluster_pool import ClusterPool
from shared.redis.connection import pack
from shared.redis.pipeline import connection_to
from shared.redis.pubsub import PubSubProtocol
from shared.redis.reminders import Reminders, shortened
from shared.redis.sentinel import SentinelPool

logger = logging.getLogger(__name__)

_RETRY_S = 0.25


class Listener(Protocol):
    """Hears a subscription. Nothing else is read until a method returns, so none may block.

    An error that one of them raises ends `subscribe`.
    """

    def on_messages(self, messages: Sequence[bytes]) -> None:
        """The messages of one read, in the order in which Redis published them."""

    def on_restored(self) -> None:
        """Redis has confirmed every name: messages may have been missed before."""

    def on_lost(self) -> None:
        """The connection broke, or could not be opened: Redis may return without its last writes."""


async def subscribe(redis: Redis, names: Sequence[str], listener: Listener) -> None:
    """Hands all messages that are published under these names to the listener, until it is cancelled.

    `on_restored` follows each (re)subscription, `on_lost` each loss and each failed attempt, of which there
    is one every 0.25 s. Behind sentinels the server is the present primary; in a cluster it is any node.
    """
    reminders = Reminders()
    while True:
        protocol = SubscriptionProtocol(names, listener)
        try:
            await _open(redis, protocol)
            await protocol.closed
        except (RedisError, OSError) as error:
            log(error, reminders)
        finally:
            protocol.abort()
        listener.on_lost()
        await asyncio.sleep(_RETRY_S)


def log(error: Exception, reminders: Reminders) -> None:
    """A Redis that is away is in the log by the first failed command; here it may refuse this one alone."""
    if type(error) in (RedisConnectionError, RedisTimeoutError) or isinstance(error, OSError):
        logger.debug("subscription.lost", extra={"facts": {"why": type(error).__name__}})
        return
    why = f"{type(error).__name__}: {shortened(str(error))}"
    if reminders.is_due(why):
        logger.warning("subscription.refused", extra={"facts": {"why": why}})


async def _open(redis: Redis, protocol: "SubscriptionProtocol") -> None:
    """Connects the protocol. Raises redis-py's errors, and OSError."""
    pool = redis.connection_pool
    if not isinstance(pool, ClusterPool):
        await connection_to(redis).hand_over_to(protocol)
    else:
        await _open_to_any_node(pool, protocol)
    if isinstance(pool, ClusterPool | SentinelPool):
        pool.subscriptions.add(protocol)


async def _open_to_any_node(pool: ClusterPool, protocol: "SubscriptionProtocol") -> None:
    last_error: Exception = RedisConnectionError("the cluster has no node")
    for node in pool.nodes:
        try:
            await connection_to(pool.client_of(node)).hand_over_to(protocol)
        except (RedisError, OSError) as error:
            last_error = error
            pool.avoid(node)
        else:
            return
    raise last_error


class SubscriptionProtocol(PubSubProtocol):
    """The bytes of one subscription, from the end of the handshake to the end of its connection."""

    kind = b"message"
    content = 2

    def __init__(self, names: Sequence[str], listener: Listener) -> None:
        super().__init__(listener)
        self._names = names
        self._listener = listener
        self._to_confirm = len(names)

    def on_open(self) -> None:
        self.write(pack(("SUBSCRIBE", *self._names)))

    def on_reply(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, list) and reply[0] == b"subscribe":
            self._to_confirm -= 1
            if self._to_confirm == 0:
                self._listener.on_restored()
