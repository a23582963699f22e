"""Which boots of which replicas are live. A lease is worth something while its boot's heartbeat is there."""

from shared.store import keyspace
from shared.store.calls import Calls


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
