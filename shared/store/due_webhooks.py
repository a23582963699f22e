"""Webhooks that are pending something, though no wakeup told of it: it was lost, or whoever heard it has died."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from shared.model.channels import instance_of
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas

_LOT = 500


@dataclass(frozen=True, slots=True)
class Due:
    """A webhook channel that is pending something now; since when, and whether another who lives holds it."""

    channel: str
    failed: int
    since_ms: int
    is_held: bool


class DueWebhooks:
    """Walks through all webhook channels, in lots."""

    def __init__(self, redis: RedisCommands, *, instance: str, now_ms: Callable[[], int]) -> None:
        self._redis = redis
        self._replicas = Replicas(redis)
        self._instance = instance
        self._now_ms = now_ms

    async def lots(self) -> AsyncIterator[list[Due]]:
        """What is due in each lot of some hundreds; forgets on its way what is gone.

        Raises StoreUnavailable.
        """
        cursor: bytes | int = 0
        while True:
            cursor, members = await self._redis.command("SSCAN", keyspace.WEBHOOKS, cursor, "COUNT", _LOT)
            looked = await asyncio.gather(*(self._look_at(member.decode()) for member in members))
            yield await self._judged([found for found in looked if found is not None])
            if int(cursor) == 0:
                return

    async def _look_at(self, member: str) -> tuple[Due, str] | None:
        """What is due, and its owner's name or ''."""
        channel, _, generation = member.partition(":")
        names = keyspace.of_a_queue(channel)[:4]
        word, *found = await self._redis.script("webhook_due", names, generation, self._now_ms())
        if word == b"gone":
            # The member names the generation: one that was made anew is another member.
            await self._redis.command("SREM", keyspace.WEBHOOKS, member)
        if word != b"due":
            return None
        return Due(channel, int(found[1]), int(found[2]), is_held=False), found[0].decode()

    async def _judged(self, found: list[tuple[Due, str]]) -> list[Due]:
        instances = {instance_of(owner) for _, owner in found if owner} - {self._instance}
        seen = await asyncio.gather(*map(self._replicas.seen, instances))
        live = {instance for instance, its in zip(instances, seen, strict=True) if its.live}
        return [replace(due, is_held=instance_of(owner) in live) for due, owner in found]
