"""A publisher of numbered events that retries after a 503."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from tests.harness.api import Api, ApiKey
from tests.harness.events import readings
from tests.harness.waiting import wait_until


class Publisher:
    """Publishes batches one after the other, to one API key's channel or to its subscribers."""

    def __init__(self, api: Api, key: ApiKey, *, to: ApiKey | None = None, batch: int = 10) -> None:
        self._api = api
        self._key = key
        self._to = to.id if to else None
        self._batch = batch
        self.accepted = 0
        """Every number below it has a 202."""
        self.unavailable = 0
        """The number of 503 responses."""

    async def publish(self, count: int) -> None:
        """Publishes `count` more; returns when all are accepted."""
        end = self.accepted + count
        while self.accepted < end:
            await self._publish(range(self.accepted, min(self.accepted + self._batch, end)))

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publishes during the block."""
        stop = asyncio.Event()

        async def publish_until_stopped() -> None:
            while not stop.is_set():
                await self.publish(self._batch)

        task = asyncio.create_task(publish_until_stopped())
        try:
            yield
        finally:
            stop.set()
            await task

    async def wait_for_accepted(self, count: int, *, within_s: float = 60) -> None:
        """Waits until `count` more are accepted."""
        goal = self.accepted + count
        await wait_until(lambda: self.accepted >= goal, within_s=within_s, what=f"{goal} accepted")

    async def _publish(self, numbers: range) -> None:
        events = readings(numbers, to=self._to)
        await wait_until(lambda: self._is_accepted(events), within_s=60, what="a 202")
        self.accepted = numbers.stop

    async def _is_accepted(self, events: object) -> bool:
        try:
            response = await self._api.post_events(self._key, events)
        except aiohttp.ClientError:
            return False
        if response.status == 503:
            assert int(response.headers["Retry-After"]) >= 1
            self.unavailable += 1
            return False
        assert response.status == 202, response
        return True
