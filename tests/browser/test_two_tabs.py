"""Two tabs of Chromium read one topic with the reader of docs/streams.md, whatever becomes of the edge."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.browser.pages import Tab, browser, documented_page
from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

WITHIN_S = 60


class Shop:
    """Publishes one order after the other while it is open."""

    def __init__(self, api: Api, key: ApiKey) -> None:
        self._api, self.key = api, key
        self.orders: list[str] = []
        """The ids of all that were answered, in their order."""
        self._is_open = True

    async def prepare(self) -> None:
        rules = [{"topics": ["orders.#"], "keep": {"count": 100_000}}]
        for path, body in (("/v1/streams", rules), ("/v1/bindings", ["orders.#"])):
            assert (await self._api.call("PUT", path, key=self.key, json=body)).status == 204

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
            await self._api.publish(self.key, event)
            self.orders.append(order)

    async def sells_more(self, count: int = 50) -> None:
        target = len(self.orders) + count
        await wait_until(lambda: len(self.orders) >= target, within_s=WITHIN_S)


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(gateways=1, edges=1)


@pytest.fixture
async def shop(stack: Stack, http: aiohttp.ClientSession) -> Shop:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    made = Shop(api, await api.api_key(scopes=("publish", "receive", "channels")))
    await made.prepare()
    return made


async def show_all(tabs: list[Tab], shop: Shop) -> None:
    """Waits until each tab shows what is sold by now, live and without having been told of a gap."""
    sold = shop.orders[:]

    async def do_they() -> bool:
        return all([(await tab.shown())[: len(sold)] == sold and await tab.state() == "live" for tab in tabs])

    try:
        await wait_until(do_they, within_s=WITHIN_S)
    except AssertionError as error:
        found = [(len(shown := await tab.shown()), shown[-3:], await tab.state()) for tab in tabs]
        raise AssertionError(f"of {len(sold)} orders: {found}") from error


async def test_two_tabs_lack_nothing_and_get_nothing_twice(stack: Stack, shop: Shop) -> None:
    [edge] = stack.edges
    async with browser() as context, documented_page(edge.url, shop.key) as url:
        tabs = [Tab(await context.new_page()) for _ in range(2)]
        for tab in tabs:
            await tab.open(url)
        await show_all(tabs, shop)

        async with shop.selling():
            await shop.sells_more()
            edge.kill()
            await shop.sells_more()
            edge.start()
            edge.wait_ready()
            await show_all(tabs, shop)
            assert all(tab.interruptions for tab in tabs), "each has lost its connection"

            await tabs[0].reload()
            await shop.sells_more()
            await show_all(tabs, shop)

            edge.terminate()
            await wait_until(lambda: edge.ended, within_s=WITHIN_S)
            await shop.sells_more()
            edge.start()
            edge.wait_ready()
        await show_all(tabs, shop)

        for tab in tabs:
            assert await tab.shown() == shop.orders
            assert tab.errors == []
