"""Long polls of one API key through one edge."""

import asyncio
import re

from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import number_of
from tests.harness.processes import Service
from tests.harness.waiting import wait_until

PULL = "/v2/notification/pull"

_HELD = re.compile(r"^notify_polls(?:\{.*\})? (\S+)$", re.MULTILINE)


class Polls:
    """A client that polls."""

    def __init__(self, api: Api, key: ApiKey, edge: Service) -> None:
        self._api = api.at(edge.url)
        self.key = key

    async def get(self, **query: str) -> Response:
        return await self._api.call("GET", PULL, key=self.key, params=query)

    async def now(self) -> Response:
        """Polls without waiting."""
        return await self.get(noWait="true")

    async def open(self, **query: str) -> asyncio.Task[Response]:
        """Starts a poll and waits until the edge holds it, as its only one."""
        await wait_until(self._holds_none, what="earlier polls to end")
        poll = asyncio.create_task(self.get(**query))

        async def is_held() -> bool:
            assert not poll.done(), poll.result()
            return not await self._holds_none()

        await wait_until(is_held, what="the poll to be held")
        return poll

    async def _holds_none(self) -> bool:
        return await self.held() == 0

    async def delete(self) -> Response:
        return await self._api.call("DELETE", PULL, key=self.key)

    async def held(self) -> int:
        """The number of polls that the edge holds, by its metrics."""
        page = (await self._api.call("GET", "/metrics")).text
        found = _HELD.search(page)
        assert found is not None, page
        return int(float(found[1]))


def numbers_in(response: Response) -> list[int]:
    """The numbers in a 200; none in a 204."""
    assert response.status in (200, 204), (response.status, response.text[:1000])
    items = response.json.get("notifications", []) if response.status == 200 else []
    return [number_of(item) for item in items]
