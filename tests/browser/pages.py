"""The page of docs/streams.md, served to tabs of Debian's Chromium."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

from tests.harness.api import ApiKey
from tests.harness.processes import free_port
from tests.harness.programs import program
from tests.stock.documented import STREAMS_PAGE, blocks

# What a tab shows is gone with a reload; the tab keeps it for the test.
_KEEP_SHOWN = """
addEventListener("pagehide", () => {
  const shown = [...document.querySelectorAll("#orders li")].map((each) => each.textContent);
  const before = JSON.parse(sessionStorage.getItem("before") ?? "[]");
  sessionStorage.setItem("before", JSON.stringify([...before, ...shown]));
});
"""
_ALL_SHOWN = """() => [
  ...JSON.parse(sessionStorage.getItem("before") ?? "[]"),
  ...[...document.querySelectorAll("#orders li")].map((each) => each.textContent),
]"""


class Tab:
    """A tab with the page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.interruptions: list[str] = []
        """What the reader has said before each further attempt."""
        self.errors: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if "trying again" in message.text:
            self.interruptions.append(message.text)

    async def open(self, url: str) -> None:
        await self._page.goto(url)

    async def reload(self) -> None:
        await self._page.reload()

    async def state(self) -> str:
        return await self._page.inner_text("#state")

    async def shown(self) -> list[str]:
        """The ids of all events that it has shown, before reloads too."""
        return list(await self._page.evaluate(_ALL_SHOWN))


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[BrowserContext]:
    """A profile of its own. Ends the test without Chromium."""
    binary = program("chromium")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=binary)
        try:
            context = await chromium.new_context()
            await context.add_init_script(_KEEP_SHOWN)
            yield context
        finally:
            await chromium.close()


@contextlib.asynccontextmanager
async def documented_page(origin: str, key: ApiKey) -> AsyncIterator[str]:
    """Serves the page from an origin of its own, with this origin and key in place of the documented ones."""
    [module], [page] = blocks("js", STREAMS_PAGE), blocks("html", STREAMS_PAGE)
    for documented, ours in (("http://127.0.0.1:8000", origin), ("ak_…", key.secret)):
        assert page.count(documented) == 1
        page = page.replace(documented, ours)
    app = web.Application()

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def reader(_: web.Request) -> web.Response:
        return web.Response(text=module, content_type="text/javascript")

    app.router.add_get("/", index)
    app.router.add_get("/stream.mjs", reader)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()
