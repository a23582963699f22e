"""Long polls of one API key through one edge, by a stock HTTP client."""

import asyncio
import re

from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import number_of
from tests.harness.processes import Service
from tests.harness.waiting import wait_until

PULL = "/v2/notification/pull"

_HELD = re.compile(r"^notify_polls(?:\{.*\})? (\S+)$", re.MULTILINE)


class Polls:
    """What an application that polls does."""

    def __init__(self, api: Api, key: ApiKey, edge: Service) -> None:
        self._api = api.at(edge.url)
        self.key = key

    async def get(self, **query: str) -> Response:
        return await self._api.call("GET", PULL, key=self.key, params=query)

    async def now(self) -> Response:
        """What waits now."""
        return await self.get(noWait="true")

    async def opened(self, **query: str) -> asyncio.Task[Response]:
        """A poll that the edge holds, as its only one, and the answer to come."""
        await wait_until(self._holds_none, what="what was held before to end")
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
        """How many polls of all API keys the edge holds, by its metrics."""
        page = (await self._api.call("GET", "/metrics")).text
        found = _HELD.search(page)
        assert found is not None, page
        return int(float(found[1]))


def numbers_in(response: Response) -> list[int]:
    """The numbers of a 200's device notifications; none of a 204."""
    assert response.status in (200, 204), (response.status, response.text[:1000])
    items = response.json.get("notifications", []) if response.status == 200 else []
    return [number_of(item) for item in items]
