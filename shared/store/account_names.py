"""The accounts of the installation by name, so that one whose id is lost is found again.

An entry is written before the account's record and removed after it. So an account that exists has its entry,
unless Redis lost one of two slots; the reaper's walk repairs that. An entry without its record is not listed.
"""

import asyncio
from collections.abc import Sequence

from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.name_index import cursor_of, entry_of, id_in, page


class AccountNames:
    """A sorted set of `<name> NUL <id>`."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def add(self, name: str, account_id: str) -> None:
        await self._redis.command("ZADD", keyspace.ACCOUNT_NAMES, 0, entry_of(name, account_id))

    async def drop(self, name: str, account_id: str) -> None:
        await self._redis.command("ZREM", keyspace.ACCOUNT_NAMES, entry_of(name, account_id))

    async def page(self, prefix: str, *, after: str, count: int) -> tuple[list[str], str | None]:
        """Ids of at most `count` accounts whose names begin so, in the order of their names' bytes.

        Also returns the `after` of the next page, None on the last. Raises ValueError for an `after` that no
        page returned.
        """
        entries, has_more = await page(self._redis, keyspace.ACCOUNT_NAMES, prefix, after=after, count=count)
        return list(map(id_in, entries)), cursor_of(entries[-1]) if has_more else None

    async def add_missing(self, account_ids: Sequence[str]) -> None:
        """Adds entries of accounts that have none."""
        names = await asyncio.gather(*map(self._name, account_ids))
        await asyncio.gather(
            *(self.add(name, each) for name, each in zip(names, account_ids, strict=True) if name is not None)
        )

    async def drop_stale(self, cursor: str, *, count: int) -> str:
        """Drops, of about `count` entries, those whose account has another name or is gone.

        Returns the cursor of the next ones, '' at the end.
        """
        following, found = await self._redis.command(
            "ZSCAN", keyspace.ACCOUNT_NAMES, cursor or 0, "COUNT", count
        )
        entries = found[::2]
        names = await asyncio.gather(*(self._name(id_in(entry)) for entry in entries))
        stale = [
            entry
            for entry, name in zip(entries, names, strict=True)
            if name is None or entry_of(name, id_in(entry)) != entry
        ]
        if stale:
            await self._redis.command("ZREM", keyspace.ACCOUNT_NAMES, *stale)
        return "" if int(following) == 0 else following.decode()

    async def _name(self, account_id: str) -> str | None:
        name = await self._redis.command("HGET", keyspace.account(account_id), "name")
        return None if name is None else str(name.decode())
