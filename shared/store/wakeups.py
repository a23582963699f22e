"""Wakeups: "look at these channels again", over pub/sub. A lost one costs latency, never a notification.

Each process hears the one name of its instance. What one turn of the event loop wants woken goes out as one
message for each instance. What is queued wakeups by itself (`queue_append.lua`), and may carry what was queued.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

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
_KEY = "key:"
_ASKED = "held?"
_TOLD = "held:"


class Standing(StrEnum):
    """How a long poll that has a lease stands, in its own replica's word."""

    OPEN = "open"
    ENDING = "reason"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Asked:
    """How does the poll with this owner's name stand? `asker` is the name that asks, as an owner's."""

    owner: str
    channel: str
    asker: str


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to what `asker` asked."""

    asker: str
    standing: Standing


class Wakeups:
    """Sends wakeups to the owners of channels."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis
        self._waiting: dict[str, set[str]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, owner: str, api_key_id: str) -> None:
        """Wakeups the owner of a channel, soon. Never raises: the owner looks by itself once a minute."""
        self._send(owner, api_key_id)

    def send_key_changed(self, owner: str, api_key_id: str) -> None:
        """Wakeups the owner to look at the key's record, too: its socket's secret may have got an end."""
        self._send(owner, _KEY + api_key_id)

    def ask(self, question: Asked) -> None:
        """Asks the replica of a lease's owner. An answer may never come."""
        self._send(question.owner, _ASKED + f"{question.owner}?{question.channel}?{question.asker}")

    def tell(self, answer: Told) -> None:
        self._send(answer.asker, _TOLD + f"{answer.asker}:{answer.standing}")

    def _send(self, owner: str, word: str) -> None:
        if not self._waiting:
            task = asyncio.get_running_loop().create_task(self._send_waiting())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        self._waiting.setdefault(instance_of(owner), set()).add(word)

    async def sent(self) -> None:
        """Waits until what was to be sent by now has been."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        telemetry.wakeups.add(len(waiting))
        try:
            async with asyncio.TaskGroup() as group:
                for instance, ids in waiting.items():
                    group.create_task(self._publish(instance, " ".join(ids)))
        except* StoreUnavailable:
            logger.warning("wakeup.lost", extra={"facts": {"instances": len(waiting)}})

    async def _publish(self, instance: str, ids: str) -> None:
        await self._redis.command("PUBLISH", keyspace.wakeup(instance), ids)


def changed_key(word: str) -> str | None:
    """The API key whose record has changed, when this is what a word of a wakeup tells."""
    return word.removeprefix(_KEY) if word.startswith(_KEY) else None


def question_in(word: str) -> Asked | None:
    """The question that a word of a wakeup is; None when it is none."""
    parts = word.removeprefix(_ASKED).split("?") if word.startswith(_ASKED) else []
    return Asked(*parts) if len(parts) == 3 else None


def answer_in(word: str) -> Told | None:
    """The answer that a word of a wakeup is; None when it is none."""
    asker, _, standing = word.removeprefix(_TOLD).partition(":") if word.startswith(_TOLD) else ("", "", "")
    return Told(asker, Standing(standing)) if standing in list(Standing) else None


class Line(StrEnum):
    """What became of the line on which wakeups are heard."""

    LOST = "lost"
    BACK = "back"


async def subscribe_wakeups(
    redis: Redis, *instances: str
) -> AsyncGenerator[InlineEntries | list[str] | Line, None]:
    """Each wakeup for these instances: what it carries, or its words: API key ids, or what the functions above
    understand.

    BACK after every (re)subscribe: look at everything. LOST when the connection broke: Redis may come back
    without its last writes. Never ends by itself: it subscribes again for as long as Redis is away.
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
        yield Line.LOST
        await asyncio.sleep(_RETRY_S)


async def _messages(
    pubsub: PubSub, *, to_confirm: int
) -> AsyncGenerator[InlineEntries | list[str] | Line, None]:
    """What comes over this one connection; BACK when all its subscriptions stand. Raises when it breaks."""
    connection = cast(AbstractConnection, pubsub.connection)
    # redis-py would time each message, look after the connection's health before it, and make a record of it:
    # several times what Redis spends on it.
    time_out_s, connection.socket_timeout = connection.socket_timeout, None
    heard = _Heard()
    watching = asyncio.create_task(_hang_up_when_dead(pubsub, heard))
    try:
        while True:
            kind, *values = await connection.read_response(disconnect_on_error=False, push_request=True)
            heard.count += 1
            if kind == b"message":
                yield parse_inline_entries(values[1]) or values[1].decode().split()
            elif kind == b"subscribe":
                to_confirm -= 1
                if to_confirm == 0:
                    yield Line.BACK
    finally:
        # Its pool may give it to somebody else.
        connection.socket_timeout = time_out_s
        watching.cancel()
        await asyncio.wait([watching])


@dataclass(slots=True)
class _Heard:
    count: int = 0


async def _hang_up_when_dead(pubsub: PubSub, heard: _Heard) -> None:
    """A connection that died without a word is found by asking: silence after two pings ends it."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        unanswered = before = 0
        while unanswered <= _PINGS:
            await asyncio.sleep(_SILENCE_S)
            unanswered = unanswered + 1 if heard.count == before else 0
            before = heard.count
            if 0 < unanswered <= _PINGS:
                await pubsub.ping()
    await cast(AbstractConnection, pubsub.connection).disconnect(nowait=True)
