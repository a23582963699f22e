"""Counts what an account has stored, from what is there: in pages with pauses, one recount at a time."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from shared.redis.pipeline import RedisCommands
from shared.store import keyspace, stream_names

# What travels in one pipeline, and the pause behind it: other accounts' commands wait for no more.
_AT_ONCE = 100
_PAUSE_S = 0.01
# A killed process keeps others from counting this long; a live one renews its lock with each page.
_LOCK_MS = 10_000
# Parts of a hash of device types that are measured: the rest is like them. A session's queue is not sampled.
_SAMPLES = 100

_Keep: TypeAlias = Callable[[], Awaitable[None]]


class _LockLost(Exception):
    """This process was stopped for so long that another one may have counted since."""


class Recount:
    """Replaces the sums in an account's usage by what it finds."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def run(self, account_id: str) -> int | None:
        """The bytes that the account has stored; None if another process counts them, or may have."""
        account, usage = keyspace.account(account_id), keyspace.usage(account_id)
        lock, token = keyspace.recount(account_id), secrets.token_hex(8)

        async def keep() -> None:
            if not await self._redis.script("lock_renew", [lock], token, _LOCK_MS):
                raise _LockLost

        before = await self._redis.script("recount_begin", [usage, lock], token, _LOCK_MS)
        if before is None:
            return None
        try:
            found = (
                await self._queues(account_id, keep),
                await self._sessions(account_id, keep),
                await self._memory(keyspace.device_types(account_id), samples=_SAMPLES),
                await self._streams(account_id, keep),
            )
        except _LockLost:
            return None
        pairs = (part for pair in zip(before, found, strict=True) for part in pair)
        names = [account, usage, lock]
        total = await self._redis.script("usage_recount", names, token, *pairs)
        return None if total is None else int(total)

    async def _queues(self, account_id: str, keep: _Keep) -> int:
        size = 0
        async for fields in pages(self._redis, "HSCAN", keyspace.routing(account_id), "key:*"):
            ids = (field.removeprefix("key:") for field in fields)
            queues = ([*keyspace.channel_names(each)[1:3], keyspace.attempts(each)] for each in ids)
            size += sum(await asyncio.gather(*(self._redis.script("queue_size", names) for names in queues)))
            await keep()
            await asyncio.sleep(_PAUSE_S)
        return size

    async def _sessions(self, account_id: str, keep: _Keep) -> int:
        size = 0
        async for ids in pages(self._redis, "SSCAN", keyspace.sessions(account_id), "*"):
            named = ([keyspace.session(each), keyspace.queue(each)] for each in ids)
            size += sum(await asyncio.gather(*(self._memory(names, samples=0) for names in named)))
            await keep()
            await asyncio.sleep(_PAUSE_S)
        return size

    async def _streams(self, account_id: str, keep: _Keep) -> int:
        size = 0
        for place in await places_in_use(self._redis, account_id):
            async for topics in pages(self._redis, "ZSCAN", place, "*"):
                named = (stream_names.names(account_id, each.partition(" ")[2])[:2] for each in topics)
                size += sum(
                    await asyncio.gather(*(self._redis.script("stream_size", names) for names in named))
                )
                await keep()
                await asyncio.sleep(_PAUSE_S)
        return size

    def _memory(self, names: Sequence[str], *, samples: int) -> asyncio.Future[Any]:
        return self._redis.script("memory_of", names, samples)


async def places_in_use(redis: RedisCommands, account_id: str) -> list[str]:
    """The places of an account's streams that have any topic."""
    places = stream_names.places(account_id)
    exist = await asyncio.gather(*(redis.command("EXISTS", place) for place in places))
    return [place for place, exists in zip(places, exist, strict=True) if exists]


async def pages(redis: RedisCommands, command: str, name: str, pattern: str) -> AsyncIterator[Sequence[str]]:
    """The fields of a hash (HSCAN), or the members of a set (SSCAN, ZSCAN), that match: a few at a time."""
    cursor: bytes | int = 0
    while True:
        cursor, found = await redis.command(command, name, cursor, "MATCH", pattern, "COUNT", _AT_ONCE)
        members = [each.decode() for each in (found if command == "SSCAN" else found[::2])]
        # A small hash or set comes as a whole.
        for start in range(0, len(members), _AT_ONCE):
            yield members[start : start + _AT_ONCE]
        if int(cursor) == 0:
            return
