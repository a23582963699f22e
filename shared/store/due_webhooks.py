"""The sweep of webhooks: finds pending notifications whose wakeup was lost, or whose dispatcher died."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from shared.model.channels import instance_of
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas

PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A webhook channel with a notification that may be sent, and since when; or one with notices.

    `is_held`: another live instance owns it. `has_notices`: it has notices to publish. Then nothing may
    be due.
    """

    channel: str
    failed_attempts: int
    since_ms: int
    is_held: bool
    has_notices: bool = False
    is_due: bool = True


class DueWebhooks:
    """Walks through all webhook channels."""

    def __init__(self, redis: RedisCommands, *, instance: str) -> None:
        self._redis = redis
        self._replicas = Replicas(redis)
        self._instance = instance

    async def begin_walk(self, *, ttl_ms: int) -> bool:
        """False while another dispatcher walks, or has walked lately. Raises StoreUnavailable."""
        args = ("SET", keyspace.SWEEP, self._instance, "NX", "PX", ttl_ms)
        return await self._redis.command(*args) is not None

    async def go_on(self, *, ttl_ms: int) -> bool:
        """Keeps the other dispatchers from walking for another `ttl_ms`; False if one of them walks.

        Raises StoreUnavailable.
        """
        names = [keyspace.SWEEP]
        if await self._redis.script("lock_renew", names, self._instance, ttl_ms):
            return True
        # A walk that was late and met no other goes on: half a walk finds half of what was lost.
        return await self.begin_walk(ttl_ms=ttl_ms)

    async def pages(self, *, pause_s: float = 0.0) -> AsyncIterator[list[DueWebhook]]:
        """The due webhooks among each hundred or so, with a pause in between.

        Removes index entries of channels that are gone. Raises StoreUnavailable.
        """
        cursor: bytes | int = 0
        while True:
            cursor, members = await self._redis.command(
                "SSCAN", keyspace.WEBHOOKS, cursor, "COUNT", PAGE_SIZE
            )
            due = await asyncio.gather(*(self._due(member.decode()) for member in members))
            found = [each for each in due if each is not None]
            live = await self._replicas.live_instances({owner for _, owner in found}) - {self._instance}
            yield [replace(webhook, is_held=instance_of(owner) in live) for webhook, owner in found]
            if int(cursor) == 0:
                return
            await asyncio.sleep(pause_s)

    async def _due(self, member: str) -> tuple[DueWebhook, str] | None:
        """The webhook and its owner; None when nothing is due."""
        channel, _, generation = member.partition(":")
        names = [*keyspace.channel_names(channel)[:3], keyspace.taken(channel)]
        status, *fields = await self._redis.script("webhook_due", names, generation)
        if status == b"absent":
            # The member names the generation: a channel created since has another member.
            await self._redis.command("SREM", keyspace.WEBHOOKS, member)
            return None
        has_notices = fields[0] == b"1"
        if status == b"due":
            owner, failed_attempts, since_ms = fields[1:]
            found = DueWebhook(channel, int(failed_attempts), int(since_ms), False, has_notices)
            return found, owner.decode()
        if not has_notices:
            return None
        return DueWebhook(channel, 0, 0, is_held=False, has_notices=True, is_due=False), ""
