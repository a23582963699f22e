"""All names in Redis, in pages: for the reconciliation, which is the only step that reads everything."""

from shared.redis.pipeline import RedisCommands


class Names:
    """Reads names, of whatever kind."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def page(self, cursor: str, *, count: int) -> tuple[str, list[bytes]]:
        """About `count` names, and the cursor of the next page, as `RedisCommands.scan_page` says."""
        return await self._redis.scan_page(cursor, count=count)
