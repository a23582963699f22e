"""The page of docs/native.md with an EventSource and a ticket, in Chromium, whatever becomes of its edge."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.browser.back_end import BackEnd
from tests.browser.pages import Tab, browser, serving, with_ours
from tests.browser.shop import WITHIN_S, Shop
from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.stack import Stack
from tests.harness.tokens import issuer
from tests.harness.waiting import wait_until
from tests.stock.documented import NATIVE_PAGE, blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(gateways=1, edges=1)


@pytest.fixture
async def shop(stack: Stack, http: aiohttp.ClientSession) -> Shop:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    made = Shop(api, await api.api_key(scopes=("publish", "receive", "channels", "admin")))
    await made.prepare()
    return made


@pytest.fixture
async def back_end(shop: Shop) -> BackEnd:
    return BackEnd(await issuer(shop.api, shop.key))


@contextlib.asynccontextmanager
async def reading(stack: Stack, back_end: BackEnd) -> AsyncIterator[Tab]:
    """A tab whose EventSource is open."""
    [page] = [block for block in blocks("html", NATIVE_PAGE) if "<!-- tickets.html -->" in block]
    # Gateway and edge have one origin behind a proxy.
    [gateway], [edge] = stack.gateways, stack.edges
    places = ("${GATEWAY}/v1/tickets", f"{gateway.url}/v1/tickets"), ("http://127.0.0.1:8000", edge.url)
    files = {"index.html": with_ours(page, *places)}
    async with browser() as context, serving(files, routes=back_end.routes) as url:
        tab = Tab(await context.new_page())
        async with tab.page.expect_response(lambda response: "/v1/stream?ticket=" in response.url):
            await tab.open(url)
        yield tab
        assert tab.errors == []


async def shows(tab: Tab, shop: Shop) -> None:
    """Waits until the tab shows everything that is sold by now."""
    sold = shop.orders[:]

    async def does_it() -> bool:
        shown = await tab.shown()
        wanted = since_first(shown, sold)
        return bool(wanted) and shown[: len(wanted)] == wanted

    await wait_until(does_it, within_s=WITHIN_S, what=lambda: (len(sold), shop.orders[-1:]))


def since_first(shown: list[str], orders: list[str]) -> list[str]:
    """What must be shown: an EventSource begins somewhere, and lacks nothing from there on."""
    return orders[orders.index(shown[0]) :] if shown and shown[0] in orders else []


async def test_it_comes_back_to_the_same_url_and_lacks_nothing(
    stack: Stack, shop: Shop, back_end: BackEnd
) -> None:
    [edge] = stack.edges
    async with reading(stack, back_end) as tab:
        async with shop.selling():
            await shop.sells_more()
            await shows(tab, shop)
            edge.kill()
            await shop.sells_more()
            edge.start()
            edge.wait_ready()
            await shows(tab, shop)

            edge.terminate()
            await wait_until(lambda: edge.ended, within_s=WITHIN_S)
            await shop.sells_more()
            edge.start()
            edge.wait_ready()
        await shows(tab, shop)
        shown = await tab.shown()
        assert shown == since_first(shown, shop.orders)
    assert len(back_end.given) == 1, "one token, so one ticket"


async def test_it_goes_on_with_the_next_ticket_when_the_token_has_ended(
    stack: Stack, shop: Shop, back_end: BackEnd
) -> None:
    back_end.ttl_s = 6
    async with reading(stack, back_end) as tab:
        async with shop.selling():
            await wait_until(lambda: len(back_end.given) == 3, within_s=WITHIN_S)
            await shop.sells_more()
        await shows(tab, shop)
        shown = await tab.shown()
        assert shown == since_first(shown, shop.orders)
