"""The readers' side of streams: where a reader goes on, why something is missing, and how many there are."""

import asyncio
from collections.abc import Mapping

from shared.model.streams import Mark, NotRecovered, Resumed, Start, StreamState
from shared.redis.pipeline import RedisCommands
from shared.store import stream_names
from shared.store.streams import READ_LOT, retained_entry


class StreamReads:
    """Reads for many readers of a topic, who get no event that is for one channel or one customer."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def resume(
        self, account_id: str, topic: str, since: Mark | Start, *, count: int, size_bytes: int
    ) -> Resumed:
        """Checks where a reader is, and reads up to `count` events there, in one step.

        It reads about `size_bytes`, but at least one event; 100 events at most, and none with a count of 0.
        """
        marked = ("", since.value) if isinstance(since, Start) else (since.epoch, since.offset)
        names = stream_names.names(account_id, topic)[:2]
        reply = await self._redis.script("stream_resume", names, *marked, min(count, READ_LOT), size_bytes)
        epoch, reason, offset, first, last = (field.decode() for field in reply[:5])
        read = [retained_entry(topic, *entry) for entry in reply[5:]]
        return Resumed(
            epoch=epoch,
            reason=NotRecovered(reason) if reason else None,
            offset=offset,
            first=first,
            last=last,
            events=[each for each in read if each.event.to is None and each.event.customer is None],
            until=read[-1].offset if read else offset,
        )

    async def state(self, account_id: str, topic: str) -> StreamState | None:
        """None without a stream: nothing was ever retained, or it was forgotten."""
        names = stream_names.names(account_id, topic)[:2]
        reply = await self._redis.script("stream_state", names)
        if not reply:
            return None
        epoch, first, last, trimmed, reason = (field.decode() for field in reply[:5])
        why = NotRecovered(reason) if reason else None
        return StreamState(epoch, first, last, trimmed, why, length=reply[5], size_bytes=reply[6])

    async def note_readers(self, account_id: str, counts: Mapping[str, int], *, instance: str) -> None:
        """Notes how many readers an edge has, by topic. It counts for 90 s; 0 ends it at once."""
        await asyncio.gather(
            *(
                self._redis.script(
                    "stream_readers_note", [stream_names.readers(account_id, topic)], instance, count
                )
                for topic, count in counts.items()
            )
        )

    async def readers(self, account_id: str, topic: str) -> int:
        """How many readers the topic has, on all edges; a few seconds old."""
        count: int = await self._redis.script("stream_readers", [stream_names.readers(account_id, topic)])
        return count
