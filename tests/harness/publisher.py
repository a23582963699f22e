"""A publisher that numbers what it sends, and tries again for as long as it is told to come back later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from tests.harness.api import Api, ApiKey
from tests.harness.events import readings
from tests.harness.waiting import wait_until


class Publisher:
    """Publishes batches one after the other, to one API key's channel or to whoever has subscribed."""

    def __init__(self, api: Api, key: ApiKey, *, to: ApiKey | None = None, batch: int = 10) -> None:
        self._api = api
        self._key = key
        self._to = to.id if to else None
        self._batch = batch
        self.accepted = 0
        """Every number below it was answered 202."""
        self.told_to_wait = 0

    async def publish(self, count: int) -> None:
        """`count` more, each answered 202 before this returns."""
        end = self.accepted + count
        while self.accepted < end:
            await self._publish(range(self.accepted, min(self.accepted + self._batch, end)))

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Goes on publishing until the block is left."""
        enough = asyncio.Event()

        async def go_on() -> None:
            while not enough.is_set():
                await self.publish(self._batch)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            enough.set()
            await task

    async def has_published(self, count: int, *, within_s: float = 60) -> None:
        """Waits until that many more are accepted."""
        goal = self.accepted + count
        await wait_until(lambda: self.accepted >= goal, within_s=within_s, what=f"{goal} accepted")

    async def _publish(self, numbers: range) -> None:
        events = readings(numbers, to=self._to)
        await wait_until(lambda: self._is_taken(events), within_s=60, what="a 202")
        self.accepted = numbers.stop

    async def _is_taken(self, events: object) -> bool:
        try:
            response = await self._api.post_events(self._key, events)
        except aiohttp.ClientError:
            return False
        if response.status == 503:
            assert int(response.headers["Retry-After"]) >= 1
            self.told_to_wait += 1
            return False
        assert response.status == 202, response
        return True
