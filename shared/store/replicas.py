"""Instances of replicas. A lease counts only while the heartbeat of its owner's instance exists."""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from shared.model.channels import instance_of
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


def new_instance_id(replica: str) -> str:
    """`replica/instance`: one run of one process. A restarted replica gets another one."""
    return f"{replica}/{secrets.token_hex(4)}"


class Heartbeat:
    """The heartbeat of one instance."""

    def __init__(self, redis: RedisCommands, *, instance: str, ttl_ms: int) -> None:
        self._redis = redis
        self._instance = instance
        self._ttl_ms = ttl_ms

    async def beat(self) -> None:
        """Keeps the instance live for another TTL."""
        await self._redis.script("heartbeat", self._names(), self._instance, self._ttl_ms)

    async def stop(self) -> None:
        """Ends the heartbeat: the instance's leases count no longer."""
        await self._redis.script("heartbeat_stop", [*self._names(), keyspace.STOPPED], self._instance)

    def _names(self) -> list[str]:
        return [keyspace.heartbeat(self._instance), keyspace.LAST_SEEN]


@dataclass(frozen=True, slots=True)
class InstanceState:
    """Whether an instance is live, and when its last heartbeat was (0: unknown)."""

    live: bool
    last_heartbeat_ms: int


class Replicas:
    """Reads the heartbeats of all instances."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def state(self, instance: str) -> InstanceState:
        live = await self._redis.command("EXISTS", keyspace.heartbeat(instance))
        last = await self._redis.command("ZSCORE", keyspace.LAST_SEEN, instance)
        if last is None:
            last = await self._redis.command("ZSCORE", keyspace.STOPPED, instance)
        return InstanceState(live=bool(live), last_heartbeat_ms=int(float(last or 0)))

    async def live_instances(self, owners: Iterable[str]) -> set[str]:
        """The instances of these owners that are live."""
        instances = sorted({instance_of(owner) for owner in owners if owner})
        states = await asyncio.gather(*map(self.state, instances))
        return {instance for instance, state in zip(instances, states, strict=True) if state.live}

    async def seen_between(self, after_ms: float, until_ms: int, *, count: int) -> list[tuple[str, float]]:
        """Instances whose last heartbeat or shutdown was in this time, oldest first, and when that was.

        At most `count`. `after_ms` is excluded. Live ones may be among them.
        """
        between = (f"({after_ms:.0f}", until_ms, "WITHSCORES", "LIMIT", 0, count)
        found = await asyncio.gather(
            *(
                self._redis.command("ZRANGEBYSCORE", name, *between)
                for name in (keyspace.LAST_SEEN, keyspace.STOPPED)
            )
        )
        seen = [
            (name.decode(), float(at))
            for page in found
            for name, at in zip(page[::2], page[1::2], strict=True)
        ]
        return sorted(seen, key=lambda each: each[1])[:count]

    async def last_seen(self) -> dict[bytes, bytes]:
        """Each instance that has not stopped, and when its last heartbeat was."""
        listed = iter(await self._redis.command("ZRANGE", keyspace.LAST_SEEN, 0, -1, "WITHSCORES"))
        return dict(zip(listed, listed, strict=True))

    async def forget(self, *, before_ms: int) -> int:
        """Forgets instances whose last heartbeat is older; returns how many."""
        forgotten = await asyncio.gather(
            *(
                self._redis.command("ZREMRANGEBYSCORE", name, "-inf", f"({before_ms}")
                for name in (keyspace.LAST_SEEN, keyspace.STOPPED)
            )
        )
        return sum(map(int, forgotten))
