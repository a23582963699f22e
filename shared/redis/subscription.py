"""Pub/sub over a connection of its own, read by callbacks: a message costs no task and no coroutine.

All messages of one read from the socket are handed over together. A subscription breaks when its connection
does, when the server stops answering pings, and when the pool breaks it on purpose; then it is opened again.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.cluster_pool import ClusterPool
from shared.redis.connection import INCOMPLETE, pack
from shared.redis.pipeline import connection_to
from shared.redis.reminders import Reminders, shortened
from shared.redis.sentinel import SentinelPool

logger = logging.getLogger(__name__)

_RETRY_S = 0.25
_SILENCE_S = 5.0
_PINGS = 2
_MESSAGES_PER_TURN = 256


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
            _log(error, reminders)
        finally:
            protocol.abort()
        listener.on_lost()
        await asyncio.sleep(_RETRY_S)


def _log(error: Exception, reminders: Reminders) -> None:
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


class SubscriptionProtocol(asyncio.Protocol):
    """The bytes of one subscription, from the end of the handshake to the end of its connection."""

    def __init__(self, names: Sequence[str], listener: Listener) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        """The end of the connection; its exception is what the listener raised, or an error reply."""
        self._names = names
        self._listener = listener
        self._to_confirm = len(names)
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=RedisError, notEnoughData=INCOMPLETE)
        self._has_received = False
        self._unanswered = 0
        self._timer: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(pack(("SUBSCRIBE", *self._names)))
        self._timer = asyncio.get_running_loop().call_later(_SILENCE_S, self._check_silence)

    def data_received(self, data: bytes) -> None:
        self._has_received = True
        messages: list[bytes] = []
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not INCOMPLETE:
                if isinstance(reply, list) and reply[0] == b"message":
                    messages.append(reply[2])
                else:
                    self._on_other(reply)
            if messages:
                self._listener.on_messages(messages)
            if len(messages) > _MESSAGES_PER_TURN:
                self._read_on_later()
        except hiredis.ProtocolError as error:
            self._end(RedisConnectionError(f"not the Redis protocol: {error}"))
        except Exception as error:
            self._end(error)

    def _read_on_later(self) -> None:
        """Leaves the rest of this turn of the event loop to others: the loop would read on while it can."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _on_other(self, reply: Any) -> None:
        """A confirmation, the reply to a ping, or an error, which it raises."""
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, list) and reply[0] == b"subscribe":
            self._to_confirm -= 1
            if self._to_confirm == 0:
                self._listener.on_restored()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end(RedisConnectionError("the connection was closed"))

    def _end(self, error: Exception) -> None:
        if not self.closed.done():
            self.closed.set_exception(error)
            # Retrieve it here: after a cancellation `subscribe` does not.
            self.closed.exception()
        self.abort()

    def _check_silence(self) -> None:
        """Pings a silent server; without a reply to two pings the peer may be gone."""
        self._unanswered = 0 if self._has_received else self._unanswered + 1
        self._has_received = False
        if self._unanswered > _PINGS:
            self.abort()
            return
        assert self._transport is not None
        if self._unanswered:
            self._transport.write(pack(("PING",)))
        self._timer = asyncio.get_running_loop().call_later(_SILENCE_S, self._check_silence)
