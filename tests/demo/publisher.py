"""Publishes the readings at a steady rate, in batches, and tries again while the service cannot take them."""

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
    """One batch is on its way at a time: only so do the readings of a device stay in order over a retry."""

    api: Api
    key: ApiKey
    tally: Tally
    rate: float
    batch: int
    retries: int = 0

    async def publish(self, readings: Sequence[Reading]) -> None:
        start_s = perf_counter()
        for first in range(0, len(readings), self.batch):
            # Against the start and not the last batch: a slow answer is caught up with.
            await asyncio.sleep(max(0.0, start_s + first / self.rate - perf_counter()))
            batch = readings[first : first + self.batch]
            now_s = perf_counter()
            for reading in batch:
                self.tally.note_sent(reading.device, reading.text, at_s=now_s)
            await self._post([reading.event for reading in batch])

    async def _post(self, events: list[dict[str, object]]) -> None:
        give_up_s = perf_counter() + _RETRY_LIMIT_S
        while (fault := await self._fault_of(events)) is not None:
            if perf_counter() > give_up_s:
                raise StackFailed(f"publishing failed for {_RETRY_LIMIT_S} s, last with {fault}")
            self.retries += 1
            await asyncio.sleep(_RETRY_S)

    async def _fault_of(self, events: list[dict[str, object]]) -> str | None:
        """None when all is queued, else what may be over next time. Raises StackFailed for anything else."""
        try:
            response = await self.api.post_events(self.key, events)
        except (aiohttp.ClientError, TimeoutError) as fault:
            return repr(fault)
        if response.status == 202:
            return None
        fault_text = f"{response.status}: {response.text[:300]}"
        if response.status != 503:
            raise StackFailed(f"publishing was refused with {fault_text}")
        return fault_text
