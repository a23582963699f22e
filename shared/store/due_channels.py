"""When something of each channel is due: what the reaper visits, instead of everything.

A score is a lower bound of the earliest time at which the channel could expire, or a notification of it could
be too old. It lies in another slot than the channel, so nothing may depend on its being exact:

- A new channel is made due before it exists, and again when it does. The reaper visits it within seconds and
  writes the true bound.
- A visit decides by the channel's own scripts, and plans the next one as if every lease was released and
  every empty queue was appended to at this very moment. So claims, releases, appends and acks write nothing
  here.
- A new score replaces only the one that was read. `bring_forward` changes every score that it meets.
- Reconciliation adds a channel that is missing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# A script takes as many members at most.
_LOT = 128
# A second look at a channel that was not found. A creation may be under way: it makes the channel due first.
_SECOND_LOOK_MS = 60_000
# A score with this fraction says that the visit before it found no channel.
_FOUND_NOTHING = 0.5


@dataclass(frozen=True, slots=True)
class DueChannel:
    """A channel that is due, by its API key's id, and the score that says so."""

    id: str
    score: bytes

    @property
    def was_missing(self) -> bool:
        """The visit before this one found no channel, and nothing has made it due since."""
        return float(self.score) % 1 == _FOUND_NOTHING


class DueChannels:
    """Reads and writes due times, in ms by the clock of Redis."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def bring_forward(self, *api_key_ids: str) -> None:
        """Makes these channels due now, whether or not they exist yet."""
        for name, ids in _by_name(api_key_ids).items():
            for start in range(0, len(ids), _LOT):
                await self._redis.script("due_bring_forward", [name], *ids[start : start + _LOT])

    async def remove(self, api_key_id: str) -> None:
        """Forgets an API key that was revoked. One that may get a channel must keep its due time."""
        await self._redis.command("ZREM", keyspace.due(api_key_id), api_key_id)

    async def bring_all_forward(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Makes every channel due now, in lots; calls `keep` after each."""
        for name in keyspace.DUE:
            cursor = ""
            while True:
                following, found = await self._redis.command("ZSCAN", name, cursor or 0, "COUNT", _LOT)
                await self.bring_forward(*(member.decode() for member in found[::2]))
                await keep()
                if int(following) == 0:
                    break
                cursor = following.decode()

    async def add_missing(self, api_key_ids: Iterable[str]) -> int:
        """Makes those due now that have no due time; how many."""
        added = 0
        for name, ids in _by_name(api_key_ids).items():
            pairs = [part for api_key_id in ids for part in (0, api_key_id)]
            added += await self._redis.command("ZADD", name, "NX", *pairs)
        return added

    async def due(self, *, now_ms: int, count: int) -> list[DueChannel]:
        """Channels that are due, at most `count` of each slot, the longest due first."""
        limit = ("LIMIT", 0, count)
        pages = await asyncio.gather(
            *(
                self._redis.command("ZRANGEBYSCORE", name, "-inf", now_ms, "WITHSCORES", *limit)
                for name in keyspace.DUE
            )
        )
        return [
            DueChannel(member.decode(), score)
            for page in pages
            for member, score in zip(page[::2], page[1::2], strict=True)
        ]

    async def plan(self, visited: Sequence[tuple[DueChannel, float | None]], *, now_ms: int) -> None:
        """Writes when each visited channel is due next; None for one that does not exist.

        The second visit that finds no channel removes the entry. A channel that was made due meanwhile keeps
        that time.
        """
        scores = {due.id: (due.score, _next_score(due, next_ms, now_ms)) for due, next_ms in visited}
        for name, ids in _by_name(scores).items():
            for start in range(0, len(ids), _LOT):
                groups = [part for each in ids[start : start + _LOT] for part in (each, *scores[each])]
                await self._redis.script("due_reschedule", [name], *groups)

    async def sample(self, *, of_each_slot: int) -> list[str]:
        """API key ids of channels chosen at random."""
        lots = await asyncio.gather(
            *(self._redis.command("ZRANDMEMBER", name, of_each_slot) for name in keyspace.DUE)
        )
        return [member.decode() for lot in lots for member in lot]


def _next_score(due: DueChannel, next_ms: float | None, now_ms: int) -> str:
    if next_ms is not None:
        return f"{next_ms:.0f}"
    return "" if due.was_missing else f"{now_ms + _SECOND_LOOK_MS + _FOUND_NOTHING:.1f}"


def _by_name(api_key_ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids by the sorted set that has them."""
    names = defaultdict[str, list[str]](list)
    for api_key_id in api_key_ids:
        names[keyspace.due(api_key_id)].append(api_key_id)
    return names
