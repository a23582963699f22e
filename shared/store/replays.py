"""Replays: begun and cancelled by a gateway, worked at by any one dispatcher.

The record has a cursor. Each step appends what is behind it and moves it, in one script in the channel's
slot: a step that is repeated, or made by a process that was replaced, appends nothing.
"""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import orjson

from shared.model.errors import NoSuchChannel
from shared.model.events import Event
from shared.model.replays import REPLAY, NewReplay, Replay, ReplayState, before_all
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.queues import QueueLimits, Queues
from shared.store.shared_appends import QUEUED, status_of

MOST_REPLAYS = 10
"""Of one account."""
LEASE_MS = 15_000
# What a replay may have pending in a queue: what comes live waits behind it.
MOST_PENDING = 500
_PART_OF_LIMIT = 2
_HOUR_MS = 3600 * 1000
_RUNS_MS = 90 * 24 * _HOUR_MS
_SHOWN_MS = 7 * 24 * _HOUR_MS
# A gateway may be about to write the record of a channel that is listed.
_LISTED_MS = 60_000
_PAGE = 200


class ReplayRuns(Exception):
    """The channel has a replay that has not ended."""


class TooManyReplays(Exception):
    """As many replays of the account run as may."""


class Step(StrEnum):
    """What became of a step of a replay."""

    MADE = "queued"
    FULL = "full"
    """The queue is too full: nothing was appended, and the replay goes on later."""
    MOVED = "moved"
    """The step was made before."""
    FENCED = "fenced"
    """The replay has ended, or another process works at it."""
    ABSENT = "absent"


class Replays:
    """The replays of all channels."""

    def __init__(self, redis: RedisCommands, queues: Queues, *, limits: QueueLimits) -> None:
        self._redis = redis
        self._queues = queues
        self._most_bytes = limits.size_bytes // _PART_OF_LIMIT

    async def begin(self, new: NewReplay) -> None:
        """Raises NoSuchChannel, ReplayRuns, TooManyReplays."""
        if not await self._take_place(new.account_id, new.channel):
            raise TooManyReplays
        # Listed first: a gateway that dies before the record leaves a name that goes.
        await self._redis.command("ZADD", keyspace.REPLAYS, new.created_ms, new.channel)
        fields: dict[str, Argument] = {
            "replay": new.id,
            "account": new.account_id,
            "since_ms": new.since_ms,
            "until_ms": new.until_ms,
            "topics": orjson.dumps(list(new.topics)),
            "per_s": new.per_s,
            "total": new.total,
            "created_ms": new.created_ms,
            "cursor": before_all(new.since_ms),
        }
        names = [keyspace.channel(new.channel), keyspace.replay(new.channel)]
        pairs = (part for pair in fields.items() for part in pair)
        begun = await self._redis.script("replay_begin", names, _RUNS_MS, *pairs)
        if begun == b"running":
            raise ReplayRuns
        if begun == b"absent":
            await self._leave_place(new.account_id, new.channel)
            raise NoSuchChannel

    async def find(self, channel: str) -> Replay | None:
        """The channel's last replay, for some days after its end."""
        fields = await self._redis.command("HGETALL", keyspace.replay(channel))
        return _replay(channel, fields) if fields else None

    async def cancel(self, account_id: str, channel: str) -> bool:
        """False when none runs."""
        if not await self._end(channel, "", ReplayState.CANCELLED, ""):
            return False
        await self._unlist(account_id, channel)
        return True

    # For who works at them

    async def listed(self) -> list[str]:
        """Channels with replays that may run, the oldest first."""
        members = await self._redis.command("ZRANGE", keyspace.REPLAYS, 0, _PAGE - 1)
        return [member.decode() for member in members]

    async def claim(self, channel: str, runner: str, *, now_ms: int) -> Replay | None:
        """The replay, for this process alone while it makes steps; None if another one has it, or it has
        ended."""
        status, *fields = await self._redis.script(
            "replay_claim", [keyspace.replay(channel)], runner, LEASE_MS
        )
        if status == b"ended":
            # It may be about to begin.
            before_ms = now_ms - _LISTED_MS
            score = await self._redis.command("ZSCORE", keyspace.REPLAYS, channel)
            if score is not None and float(score) < before_ms:
                await self._redis.command("ZREM", keyspace.REPLAYS, channel)
        if status != b"claimed":
            return None
        replay = _replay(channel, fields)
        await self._take_place(replay.new.account_id, channel)
        return replay

    async def step(
        self, replay: Replay, runner: str, events: Sequence[Event], *, before: str, after: str, passed: int
    ) -> Step:
        """Appends these events, and moves the cursor over all that were passed. Raises StoreUnavailable."""
        channel = replay.new.channel
        words = (runner, before, after, passed, MOST_PENDING, self._most_bytes, LEASE_MS)
        step = " ".join(map(str, words))
        if not events:
            names = [keyspace.channel(channel), keyspace.queue(channel), keyspace.replay(channel)]
            reply = await self._redis.script("replay_move", names, step)
        else:
            reply = await self._queues.begin_append(channel, events, again=REPLAY, step=step)
            if status_of(reply) == QUEUED:
                self._queues.end_append(reply)
        return Step(status_of(reply).decode())

    async def end(self, replay: Replay, runner: str, state: ReplayState, *, error: str = "") -> bool:
        """False when it has ended already, or another process works at it."""
        if not await self._end(replay.new.channel, runner, state, error):
            return False
        await self._unlist(replay.new.account_id, replay.new.channel)
        return True

    async def give_back(self, channel: str, runner: str) -> None:
        """Another process may work at it now."""
        await self._redis.script("replay_end", [keyspace.replay(channel)], runner, "", "", 0)

    async def has_room(self, replay: Replay) -> bool:
        """Whether the queue of a replay that waited has room for more than a step."""
        pending = await self._redis.command("XLEN", keyspace.queue(replay.new.channel))
        return int(pending) < MOST_PENDING // 2

    async def put_off(self, replay: Replay, runner: str, *, now_ms: int) -> None:
        """Gives it back behind all others that are listed: it waits for its queue."""
        channel = replay.new.channel
        await self._redis.command("ZADD", keyspace.REPLAYS, "XX", now_ms, channel)
        await self.give_back(channel, runner)

    async def _end(self, channel: str, runner: str, state: ReplayState, error: str) -> bool:
        names = [keyspace.replay(channel)]
        return bool(await self._redis.script("replay_end", names, runner, state, error, _SHOWN_MS))

    async def _take_place(self, account_id: str, channel: str) -> bool:
        names = [keyspace.replays(account_id)]
        return bool(await self._redis.script("replay_place", names, channel, MOST_REPLAYS, _HOUR_MS))

    async def _unlist(self, account_id: str, channel: str) -> None:
        await asyncio.gather(
            self._redis.command("ZREM", keyspace.REPLAYS, channel), self._leave_place(account_id, channel)
        )

    def _leave_place(self, account_id: str, channel: str) -> asyncio.Future[Any]:
        return self._redis.command("ZREM", keyspace.replays(account_id), channel)


def _replay(channel: str, fields: Sequence[bytes]) -> Replay:
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    new = NewReplay(
        id=found[b"replay"].decode(),
        channel=channel,
        account_id=found[b"account"].decode(),
        since_ms=int(found[b"since_ms"]),
        until_ms=int(found[b"until_ms"]),
        topics=orjson.loads(found[b"topics"]),
        per_s=int(found[b"per_s"]),
        total=int(found[b"total"]),
        created_ms=int(found[b"created_ms"]),
    )
    return Replay(
        new,
        state=ReplayState(found[b"state"].decode()),
        cursor=found[b"cursor"].decode(),
        passed=int(found.get(b"passed", 0)),
        done=int(found.get(b"done", 0)),
        waits=b"waits" in found,
        error=found.get(b"error", b"").decode(),
        ended_ms=int(found[b"ended_ms"]) if b"ended_ms" in found else None,
    )
