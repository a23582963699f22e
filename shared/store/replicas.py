"""Which instances of which replicas are live. A lease is worth something while its instance's heartbeat is there."""

import secrets
from dataclasses import dataclass

from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


def new_instance_id(replica: str) -> str:
    """`replica/instance`: a replica that comes back under its old name is somebody else."""
    return f"{replica}/{secrets.token_hex(4)}"


class Heartbeat:
    """Keeps one instance's heartbeat."""

    def __init__(self, redis: RedisCommands, *, instance: str, ttl_ms: int) -> None:
        self._redis = redis
        self._instance = instance
        self._ttl_ms = ttl_ms

    async def beat(self, *, now_ms: int) -> None:
        """Live for another TTL."""
        await self._redis.script("heartbeat", self._names(), self._instance, self._ttl_ms, now_ms)

    async def stop(self) -> None:
        await self._redis.script("heartbeat_stop", self._names(), self._instance)

    def _names(self) -> list[str]:
        return [keyspace.heartbeat(self._instance), keyspace.LAST_SEEN]


@dataclass(frozen=True, slots=True)
class Seen:
    """A instance as it looks from outside: live or not, and its last heartbeat in ms (0: never heard of)."""

    live: bool
    last_ms: int


class Replicas:
    """Looks at the instances of all replicas."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def seen(self, instance: str) -> Seen:
        live = await self._redis.command("EXISTS", keyspace.heartbeat(instance))
        last = await self._redis.command("ZSCORE", keyspace.LAST_SEEN, instance)
        return Seen(live=bool(live), last_ms=int(float(last or 0)))

    async def forget(self, *, before_ms: int) -> int:
        """Forgets instances whose last heartbeat is older; tells how many."""
        return int(await self._redis.command("ZREMRANGEBYSCORE", keyspace.LAST_SEEN, "-inf", f"({before_ms}"))
