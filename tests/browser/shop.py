"""What publishes while pages read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.harness.api import Api, ApiKey
from tests.harness.waiting import wait_until

WITHIN_S = 60
_PACE_S = 0.01


class Shop:
    """Publishes one order after the other while it is open."""

    def __init__(self, api: Api, key: ApiKey) -> None:
        self.api, self.key = api, key
        self.orders: list[str] = []
        """The ids of all that were answered, in their order."""
        self._is_open = True

    async def prepare(self) -> None:
        rules = [{"topics": ["orders.#"], "keep": {"count": 100_000}}]
        for path, body in (("/v1/streams", rules), ("/v1/bindings", ["orders.#"])):
            assert (await self.api.call("PUT", path, key=self.key, json=body)).status == 204

    @contextlib.asynccontextmanager
    async def selling(self) -> AsyncIterator[None]:
        sells = asyncio.create_task(self._sell())
        try:
            yield
        finally:
            self._is_open = False
            await sells

    async def _sell(self) -> None:
        while self._is_open:
            order = f"order-{len(self.orders)}"
            event = {"topic": "orders.paid", "id": order, "data": {"order": len(self.orders)}}
            await self.api.publish(self.key, event)
            self.orders.append(order)
            # A page keeps all that it shows: with ten thousands of orders each look at it takes seconds.
            await asyncio.sleep(_PACE_S)

    async def sells_more(self, count: int = 50) -> None:
        target = len(self.orders) + count
        await wait_until(lambda: len(self.orders) >= target, within_s=WITHIN_S)
