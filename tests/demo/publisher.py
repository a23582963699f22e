"""Publishes the readings in batches at a steady rate; retries while the service is unavailable."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from tests.demo.readings import Reading
from tests.demo.stack import StackFailed
from tests.demo.tally import Tally
from tests.harness.api import Api, ApiKey

_RETRY_LIMIT_S = 60
_RETRY_S = 0.2


@dataclass(slots=True)
class Publisher:
    """Publishes one batch at a time: readings of a device would otherwise be reordered by a retry."""

    api: Api
    key: ApiKey
    tally: Tally
    rate: float
    batch: int
    retries: int = 0

    async def publish(self, readings: Sequence[Reading]) -> None:
        start_s = perf_counter()
        for first in range(0, len(readings), self.batch):
            # Relative to the start: after a slow response the publisher catches up.
            await asyncio.sleep(max(0.0, start_s + first / self.rate - perf_counter()))
            batch = readings[first : first + self.batch]
            now_s = perf_counter()
            for reading in batch:
                self.tally.note_sent(reading.device, reading.text, at_s=now_s)
            await self._post([reading.event for reading in batch])

    async def _post(self, events: list[dict[str, object]]) -> None:
        give_up_s = perf_counter() + _RETRY_LIMIT_S
        while (problem := await self._try_post(events)) is not None:
            if perf_counter() > give_up_s:
                raise StackFailed(f"publishing failed for {_RETRY_LIMIT_S} s, last: {problem}")
            self.retries += 1
            await asyncio.sleep(_RETRY_S)

    async def _try_post(self, events: list[dict[str, object]]) -> str | None:
        """None if all is queued, otherwise a temporary problem. Raises StackFailed for a permanent one."""
        try:
            response = await self.api.post_events(self.key, events)
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)
        if response.status == 202:
            return None
        problem = f"{response.status}: {response.text[:300]}"
        if response.status != 503:
            raise StackFailed(f"publishing was refused with {problem}")
        return problem
