"""Wakeups: pub/sub hints that a channel may have something. A lost one costs latency, never a notification.

Each process subscribes to the name of its instance. Wakeups of one turn of the event loop are sent as one
message per instance. An append publishes its own wakeup (`queue_append.lua`), sometimes with inline entries.
"""

import asyncio
import logging

from redis.asyncio import Redis

from shared import telemetry
from shared.model.channels import instance_of
from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands
from shared.redis.subscription import Listener, subscribe
from shared.store import keyspace

logger = logging.getLogger(__name__)

_KEY_CHANGED = "key:"
_WEBHOOK_CHANGED = "webhook:"


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

    def send_webhook_changed(self, owner: str, api_key_id: str) -> None:
        """Makes dispatchers visit the webhook, and end a request that goes to an older URL."""
        self.send(owner, _WEBHOOK_CHANGED + api_key_id)

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


def parse_webhook_changed(item: str) -> str | None:
    """The webhook channel that was put, deleted or revoked; None for any other item."""
    return item.removeprefix(_WEBHOOK_CHANGED) if item.startswith(_WEBHOOK_CHANGED) else None


async def listen_to_wakeups(redis: Redis, *instances: str, listener: Listener) -> None:
    """Hands the wakeups for these instances to the listener, until it is cancelled.

    A message is inline entries or words; `shared.store.inline_entries.parse_wakeups` reads both. Words are
    ids of channels and sessions, and what the functions above parse. After `on_restored` every queue must be
    read.
    """
    await subscribe(redis, tuple(map(keyspace.wakeup, instances)), listener)
