"""Which boots of which replicas are live. A lease is worth something while its boot's heartbeat is there."""

import secrets
from dataclasses import dataclass

from shared.store import keyspace
from shared.store.calls import Calls


def new_boot(replica: str) -> str:
    """`replica/boot`: a replica that comes back under its old name is somebody else."""
    return f"{replica}/{secrets.token_hex(4)}"


class Heartbeat:
    """Keeps one boot's heartbeat."""

    def __init__(self, calls: Calls, *, boot: str, ttl_ms: int) -> None:
        self._calls = calls
        self._boot = boot
        self._ttl_ms = ttl_ms

    async def beat(self, *, now_ms: int) -> None:
        """Live for another TTL."""
        await self._calls.script("heartbeat", self._names(), self._boot, self._ttl_ms, now_ms)

    async def stop(self) -> None:
        await self._calls.script("heartbeat_stop", self._names(), self._boot)

    def _names(self) -> list[str]:
        return [keyspace.heartbeat(self._boot), keyspace.LAST_SEEN]


@dataclass(frozen=True, slots=True)
class Seen:
    """A boot as it looks from outside: live or not, and its last heartbeat in ms (0: never heard of)."""

    live: bool
    last_ms: int


class Replicas:
    """Looks at the boots of all replicas."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def seen(self, boot: str) -> Seen:
        live = await self._calls.command("EXISTS", keyspace.heartbeat(boot))
        last = await self._calls.command("ZSCORE", keyspace.LAST_SEEN, boot)
        return Seen(live=bool(live), last_ms=int(float(last or 0)))

    async def forget(self, *, before_ms: int) -> int:
        """Forgets boots whose last heartbeat is older; tells how many."""
        return int(await self._calls.command("ZREMRANGEBYSCORE", keyspace.LAST_SEEN, "-inf", f"({before_ms}"))
