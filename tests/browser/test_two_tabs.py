"""Two tabs of Chromium read one topic with the reader of docs/streams.md, whatever becomes of the edge."""

import aiohttp
import pytest

from tests.browser.pages import Tab, browser, serving, with_ours
from tests.browser.shop import WITHIN_S, Shop
from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stock.documented import STREAMS_PAGE, blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(gateways=1, edges=1)


@pytest.fixture
async def shop(stack: Stack, http: aiohttp.ClientSession) -> Shop:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    made = Shop(api, await api.api_key(scopes=("publish", "receive", "channels")))
    await made.prepare()
    return made


def files_for(origin: str, key: ApiKey) -> dict[str, str]:
    """Of the page, with this origin and key."""
    [module], [page] = blocks("js", STREAMS_PAGE), blocks("html", STREAMS_PAGE)
    ours = with_ours(page, ("http://127.0.0.1:8000", origin), ("ak_…", key.secret))
    return {"index.html": ours, "stream.mjs": module}


async def show_all(tabs: list[Tab], shop: Shop) -> None:
    """Waits until each tab shows what is sold by now, live and without having been told of a gap."""
    sold = shop.orders[:]

    async def do_they() -> bool:
        return all(
            [(await tab.shown())[: len(sold)] == sold and await tab.text("state") == "live" for tab in tabs]
        )

    try:
        await wait_until(do_they, within_s=WITHIN_S)
    except AssertionError as error:
        found = [(len(shown := await tab.shown()), shown[-3:], await tab.text("state")) for tab in tabs]
        raise AssertionError(f"of {len(sold)} orders: {found}") from error


async def test_two_tabs_lack_nothing_and_get_nothing_twice(stack: Stack, shop: Shop) -> None:
    [edge] = stack.edges
    async with browser() as context, serving(files_for(edge.url, shop.key)) as url:
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
            assert all("trying again" in str(tab.warnings) for tab in tabs), "each has lost its connection"

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
