"""The accounts of the installation by name, so that one whose id is lost is found again.

An entry is written before the account's record and removed after it. So an account that exists has its entry,
unless Redis lost one of two slots; the reaper's walk repairs that. An entry without its record is not listed.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence

from shared.model.api_keys import is_id
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


class AccountNames:
    """A sorted set of `<name> NUL <id>`."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def add(self, name: str, account_id: str) -> None:
        await self._redis.command("ZADD", keyspace.ACCOUNT_NAMES, 0, _entry(name, account_id))

    async def drop(self, name: str, account_id: str) -> None:
        await self._redis.command("ZREM", keyspace.ACCOUNT_NAMES, _entry(name, account_id))

    async def page(self, prefix: str, *, after: str, count: int) -> tuple[list[str], str | None]:
        """Ids of at most `count` accounts whose names begin so, in the order of their names' bytes.

        Also returns the `after` of the next page, None on the last. Raises ValueError for an `after` that no
        page returned.
        """
        low = b"(" + _entry_of(after) if after else b"[" + prefix.encode()
        # No UTF-8 text has this byte.
        high = b"(" + prefix.encode() + b"\xff"
        entries = await self._redis.command(
            "ZRANGEBYLEX", keyspace.ACCOUNT_NAMES, low, high, "LIMIT", 0, count + 1
        )
        ids = [entry[-_ID:].decode() for entry in entries[:count]]
        return ids, _cursor_of(entries[count - 1]) if len(entries) > count else None

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
        names = await asyncio.gather(*(self._name(entry[-_ID:].decode()) for entry in entries))
        stale = [
            entry
            for entry, name in zip(entries, names, strict=True)
            if name is None or _entry(name, entry[-_ID:].decode()) != entry
        ]
        if stale:
            await self._redis.command("ZREM", keyspace.ACCOUNT_NAMES, *stale)
        return "" if int(following) == 0 else following.decode()

    async def _name(self, account_id: str) -> str | None:
        name = await self._redis.command("HGET", keyspace.account(account_id), "name")
        return None if name is None else str(name.decode())


_ID = 32


def _entry(name: str, account_id: str) -> bytes:
    return name.encode() + b"\0" + account_id.encode()


def _cursor_of(entry: bytes) -> str:
    return base64.urlsafe_b64encode(entry).decode().rstrip("=")


def _entry_of(cursor: str) -> bytes:
    """Raises ValueError."""
    try:
        entry = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if entry[-_ID - 1 : -_ID] != b"\0" or not is_id(entry[-_ID:].decode("latin-1")):
        raise ValueError
    return entry
