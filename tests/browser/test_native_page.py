"""The page of docs/native.md in tabs of Chromium: topics and a channel over the native WebSocket, whatever
becomes of the edge, of its token, and of its owner."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from playwright.async_api import BrowserContext

from tests.browser.back_end import USER, BackEnd
from tests.browser.pages import Tab, browser, serving, with_ours
from tests.browser.shop import WITHIN_S, Shop
from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.processes import free_port
from tests.harness.stack import Stack
from tests.harness.tokens import issuer
from tests.harness.waiting import wait_until
from tests.stock.documented import NATIVE_PAGE, blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

PAGE_PORT = free_port()
LIVE, TAKEN = "live", "taken_over"


@pytest.fixture
def stack(start: Start) -> Stack:
    """Pages of one origin may connect."""
    return start(gateways=1, edges=1, ALLOWED_ORIGINS=f"http://127.0.0.1:{PAGE_PORT}")


@pytest.fixture
async def shop(stack: Stack, http: aiohttp.ClientSession) -> Shop:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    made = Shop(api, await api.api_key(scopes=("publish", "receive", "channels", "admin")))
    await made.prepare()
    kitchen = {"kind": "websocket", "name": "kitchen", "bindings": ["orders.paid"]}
    assert (await api.call("POST", "/v1/channels", key=made.key, json=kitchen)).status == 201
    return made


@pytest.fixture
async def back_end(shop: Shop) -> BackEnd:
    return BackEnd(await issuer(shop.api, shop.key))


@contextlib.asynccontextmanager
async def site(stack: Stack, back_end: BackEnd, *, port: int = PAGE_PORT) -> AsyncIterator[str]:
    """The page with its server."""
    [module] = blocks("js", NATIVE_PAGE)
    page = next(block for block in blocks("html", NATIVE_PAGE) if "<!-- index.html -->" in block)
    edge = stack.edges[0].url.replace("http://", "ws://")
    files = {"index.html": with_ours(page, ("ws://127.0.0.1:8000", edge)), "native.mjs": module}
    async with serving(files, port=port, routes=back_end.routes) as url:
        yield url


async def opened(context: BrowserContext, url: str) -> Tab:
    """A tab that is live, and has the kitchen."""
    tab = Tab(await context.new_page())
    await tab.open(url)
    await until_state(tab, LIVE)
    return tab


async def until_state(tab: Tab, state: str) -> None:
    async def is_so() -> bool:
        return await tab.text("state") == state

    await wait_until(is_so, within_s=WITHIN_S, what=lambda: (state, tab.warnings))


async def until_owner(tab: Tab, said: str) -> None:
    async def is_so() -> bool:
        return await tab.text("owner") == said

    await wait_until(is_so, within_s=WITHIN_S, what=lambda: (said, tab.warnings))


async def show_all(tabs: list[Tab], shop: Shop) -> None:
    """Waits until each tab is live and shows what is sold by now, and one of them has cooked it."""
    sold = shop.orders[:]

    async def do_they() -> bool:
        shown = [(await tab.shown())[: len(sold)] for tab in tabs]
        cooked = {order for tab in tabs for order in await tab.shown("cooked")}
        states = {await tab.text("state") for tab in tabs}
        return shown == [sold] * len(tabs) and set(sold) <= cooked and states == {LIVE}

    try:
        await wait_until(do_they, within_s=WITHIN_S)
    except AssertionError as error:
        found = [
            (len(shown := await tab.shown()), shown[-3:], (await tab.shown("cooked"))[-3:], tab.warnings[-5:])
            for tab in tabs
        ]
        raise AssertionError(f"of {len(sold)} orders: {found}") from error


async def test_two_tabs_lack_nothing_and_the_newest_owns_the_channel(
    stack: Stack, shop: Shop, back_end: BackEnd
) -> None:
    [edge] = stack.edges
    async with browser() as context, site(stack, back_end) as url:
        first, second = tabs = [await opened(context, url) for _ in range(2)]
        await until_owner(first, TAKEN)
        assert await second.text("owner") == "mine"

        async with shop.selling():
            await shop.sells_more()
            edge.kill()
            await shop.sells_more()
            edge.start()
            edge.wait_ready()
            await show_all(tabs, shop)
            assert all("waiting" in str(tab.warnings) for tab in tabs), "each has lost its connection"
            # Coming back, the first has not taken the kitchen.
            assert [await tab.text("owner") for tab in tabs] == [TAKEN, "mine"]

            await first.reload()
            await until_owner(second, TAKEN)
            await shop.sells_more()
            await show_all(tabs, shop)

            await second.page.dispatch_event("#take", "click")
            await until_owner(first, TAKEN)
            await shop.sells_more()
            await show_all(tabs, shop)

            edge.terminate()
            await wait_until(lambda: edge.ended, within_s=WITHIN_S)
            await shop.sells_more()
            edge.start()
            edge.wait_ready()
            await show_all(tabs, shop)
        await show_all(tabs, shop)

        for tab in tabs:
            assert await tab.shown() == shop.orders
            assert tab.errors == []
        assert [await tab.text("owner") for tab in tabs] == [TAKEN, "mine"]


async def test_a_token_is_replaced_before_it_ends_and_after(
    stack: Stack, shop: Shop, back_end: BackEnd
) -> None:
    back_end.ttl_s = 10
    async with browser() as context, site(stack, back_end) as url:
        tab = await opened(context, url)
        async with shop.selling():
            await wait_until(lambda: len(back_end.given) == 3, within_s=WITHIN_S)
            await show_all([tab], shop)
            assert tab.warnings == [], "on one connection, though its first token has ended"

            back_end.is_up = False
            await until_state(tab, "waiting")
            assert "4001" in str(tab.warnings)
            await shop.sells_more()
            back_end.is_up = True
            await show_all([tab], shop)
        await show_all([tab], shop)
        assert await tab.shown() == shop.orders
        assert tab.errors == []


async def test_what_it_does_next_depends_on_the_close_code(
    stack: Stack, shop: Shop, back_end: BackEnd
) -> None:
    async with browser() as context, site(stack, back_end) as url:
        tab = await opened(context, url)

        old, back_end.issuer = back_end.issuer, await issuer(shop.api, shop.key)
        assert (await shop.api.call("DELETE", f"/v1/token-keys/{old.kid}", key=shop.key)).status == 204
        await wait_until(lambda: "4002" in str(tab.warnings), within_s=WITHIN_S)
        await until_state(tab, LIVE)

        await shop.api.call("DELETE", f"/v1/sockets?sub={USER}", key=shop.key)
        await until_state(tab, "ended")
        assert "4003" in tab.warnings[-1]
        given = len(back_end.given)

        await tab.reload()
        await until_state(tab, LIVE)
        assert len(back_end.given) == given + 1, "signed in again, as a reload is"
        assert tab.errors == []


async def test_a_page_of_another_origin_cannot_connect(stack: Stack, back_end: BackEnd) -> None:
    async with browser() as context, site(stack, back_end, port=free_port()) as url:
        tab = Tab(await context.new_page())
        await tab.open(url)
        await until_state(tab, "waiting")
        assert "1006" in tab.warnings[0]
