"""Wakeups: pub/sub hints that a channel may have something. A lost one costs latency, never a notification.

Each process subscribes to the name of its instance. Wakeups of one turn of the event loop are sent as one
message per instance. An append publishes its own wakeup (`queue_append.lua`), sometimes with inline entries.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from shared import telemetry
from shared.model.channels import instance_of
from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.inline_entries import InlineEntries, parse_inline_entries

logger = logging.getLogger(__name__)

_RETRY_S = 0.25
_SILENCE_S = 5.0
_PINGS = 2
_KEY_CHANGED = "key:"


class Wakeups:
    """Sends wakeups to owners in the background. Never raises: the sweep replaces a lost wakeup."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis
        self._waiting: dict[str, set[str]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, owner: str, item: str) -> None:
        """Wakes the owner of a channel or a session, whose id the item is."""
        if not self._waiting:
            task = asyncio.get_running_loop().create_task(self._send_waiting())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        self._waiting.setdefault(instance_of(owner), set()).add(item)

    def send_key_changed(self, owner: str, api_key_id: str) -> None:
        """Makes the owner check the credentials of the key's sockets."""
        self.send(owner, _KEY_CHANGED + api_key_id)

    async def flush(self) -> None:
        """Waits until all wakeups so far have been sent."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        telemetry.wakeups.add(len(waiting))
        messages = ((keyspace.wakeup(instance), " ".join(items)) for instance, items in waiting.items())
        try:
            await asyncio.gather(*(self._redis.command("PUBLISH", *message) for message in messages))
        except StoreUnavailable:
            logger.warning("wakeup.lost", extra={"facts": {"instances": len(waiting)}})


def parse_key_changed(item: str) -> str | None:
    """The API key whose record has changed; None for any other item."""
    return item.removeprefix(_KEY_CHANGED) if item.startswith(_KEY_CHANGED) else None


class Subscription(StrEnum):
    """A change of the subscription to wakeups."""

    LOST = "lost"
    RESTORED = "restored"


# Inline entries; or items: ids of channels and sessions, and what the functions above parse.
Wakeup: TypeAlias = InlineEntries | list[str]


async def subscribe_wakeups(redis: Redis, *instances: str) -> AsyncGenerator[Wakeup | Subscription, None]:
    """Each wakeup for these instances, and each change of the subscription.

    RESTORED after every (re)subscribe: wakeups may have been missed, so read every queue. LOST when the
    connection breaks: Redis may return without its last writes. Never ends by itself: it resubscribes while
    Redis is away.
    """
    names = tuple(map(keyspace.wakeup, instances))
    while True:
        pubsub = redis.pubsub()
        try:
            await pubsub.subscribe(*names)
            async with contextlib.aclosing(_messages(pubsub, to_confirm=len(names))) as messages:
                async for message in messages:
                    yield message
        except (RedisError, OSError, TimeoutError) as error:
            logger.debug("wakeups.subscription-lost", extra={"facts": {"why": type(error).__name__}})
        finally:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await pubsub.aclose()
        yield Subscription.LOST
        await asyncio.sleep(_RETRY_S)


async def _messages(pubsub: PubSub, *, to_confirm: int) -> AsyncGenerator[Wakeup | Subscription, None]:
    """The messages of one connection; RESTORED once all subscriptions are confirmed. Raises its errors."""
    connection = cast(AbstractConnection, pubsub.connection)
    # Read from the connection itself: redis-py's pubsub times each message, checks the connection's health
    # before it and builds a record of it, which costs several times what Redis spends.
    timeout_s, connection.socket_timeout = connection.socket_timeout, None
    received = _Received()
    watching = asyncio.create_task(_disconnect_when_silent(pubsub, received))
    try:
        while True:
            kind, *values = await connection.read_response(disconnect_on_error=False, push_request=True)
            received.count += 1
            if kind == b"message":
                yield parse_inline_entries(values[1]) or values[1].decode().split()
            elif kind == b"subscribe":
                to_confirm -= 1
                if to_confirm == 0:
                    yield Subscription.RESTORED
    finally:
        # The pool may hand the connection to another user.
        connection.socket_timeout = timeout_s
        watching.cancel()
        await asyncio.wait([watching])


@dataclass(slots=True)
class _Received:
    count: int = 0


async def _disconnect_when_silent(pubsub: PubSub, received: _Received) -> None:
    """Pings a silent connection, and disconnects after two pings without a reply: the peer may be gone."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        unanswered = before = 0
        while unanswered <= _PINGS:
            await asyncio.sleep(_SILENCE_S)
            unanswered = unanswered + 1 if received.count == before else 0
            before = received.count
            if 0 < unanswered <= _PINGS:
                await pubsub.ping()
    await cast(AbstractConnection, pubsub.connection).disconnect(nowait=True)
