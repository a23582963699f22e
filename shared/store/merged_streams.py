"""The streams of many topics as one, in the order of time.

Offsets begin with the time at which Redis took the event. So the order is that of one Redis; on a cluster,
whose primaries have clocks of their own, it is exact within a topic only. Events of one ms come by their
offsets, and then by their topics: each place is a cursor, from which another process goes on.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence

from shared.model.streams import Retained
from shared.store import keyspace
from shared.store.queues import parse_entry_id
from shared.store.streams import READ_LOT, Streams, before_offset

MOST_TOPICS = 1000
"""That have events behind the cursor: each has a page in memory."""
_PAGES_BYTES = 4 * 1024 * 1024
_AT_ONCE = 50
_PAUSE_S = 0.01

_Place = tuple[tuple[int, int], str]


class TooManyTopics(Exception):
    """More topics have events than one process can merge."""


class MergedStreams:
    """What is behind a cursor, up to `until`."""

    def __init__(
        self, streams: Streams, account_id: str, topics: Sequence[str], *, cursor: str, until: str
    ) -> None:
        self._streams = streams
        self._account_id = account_id
        self._topics = topics
        self._cursor = cursor
        self._until = until
        self._page_bytes = max(1, _PAGES_BYTES // max(1, min(len(topics), MOST_TOPICS)))
        self._pages: dict[str, deque[Retained]] = {}
        self._heads: list[tuple[_Place, str]] = []

    async def begin(self) -> None:
        """Reads the first page of each topic. Raises TooManyTopics, StoreUnavailable."""
        offset, _, hashed = self._cursor.partition(":")
        for start in range(0, len(self._topics), _AT_ONCE):
            some = self._topics[start : start + _AT_ONCE]
            # At the same offset the topics behind that of the cursor are still to come.
            after = (offset if keyspace.hash_of(topic) <= hashed else before_offset(offset) for topic in some)
            await asyncio.gather(*map(self._read, some, after))
            if len(self._heads) > MOST_TOPICS:
                raise TooManyTopics
            await asyncio.sleep(_PAUSE_S)

    async def next(self) -> tuple[str, Retained] | None:
        """The next event, with the cursor that is behind it; None at the end. Raises StoreUnavailable."""
        if not self._heads:
            return None
        (_, hashed), topic = heapq.heappop(self._heads)
        page = self._pages.pop(topic)
        retained = page.popleft()
        if page:
            self._put(topic, page)
        else:
            await self._read(topic, retained.offset)
        return f"{retained.offset}:{hashed}", retained

    async def _read(self, topic: str, after: str) -> None:
        page = await self._streams.read(
            self._account_id,
            topic,
            after=after,
            until=self._until,
            count=READ_LOT,
            size_bytes=self._page_bytes,
        )
        if page:
            self._put(topic, deque(page))

    def _put(self, topic: str, page: deque[Retained]) -> None:
        self._pages[topic] = page
        place = parse_entry_id(page[0].offset), keyspace.hash_of(topic)
        heapq.heappush(self._heads, (place, topic))
