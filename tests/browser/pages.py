"""Pages of the documentation, served to tabs of Debian's Chromium."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping

from aiohttp import web
from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

from tests.harness.processes import free_port
from tests.harness.programs import program

# What a tab shows is gone with a reload; the tab keeps it for the test.
_KEEP_SHOWN = """
addEventListener("pagehide", () => {
  for (const list of document.querySelectorAll("ul")) {
    const shown = [...list.children].map((each) => each.textContent);
    const before = JSON.parse(sessionStorage.getItem(`before ${list.id}`) ?? "[]");
    sessionStorage.setItem(`before ${list.id}`, JSON.stringify([...before, ...shown]));
  }
});
"""
_ALL_SHOWN = """(id) => [
  ...JSON.parse(sessionStorage.getItem(`before ${id}`) ?? "[]"),
  ...[...document.querySelectorAll(`#${id} li`)].map((each) => each.textContent),
]"""
_TYPES = {"mjs": "text/javascript", "html": "text/html"}


class Tab:
    """A tab with a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.warnings: list[str] = []
        """What the page's code has said before each further attempt, among others."""
        self.errors: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "warning":
            self.warnings.append(message.text)

    async def open(self, url: str) -> None:
        await self.page.goto(url)

    async def reload(self) -> None:
        await self.page.reload()

    async def text(self, id: str) -> str:
        return await self.page.inner_text(f"#{id}")

    async def shown(self, id: str = "orders") -> list[str]:
        """All that a list of the page has shown, before reloads too."""
        return list(await self.page.evaluate(_ALL_SHOWN, id))


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
async def serving(
    files: Mapping[str, str], *, port: int | None = None, routes: Iterable[web.RouteDef] = ()
) -> AsyncIterator[str]:
    """Serves these files by their names, from an origin of its own. `/` is index.html."""

    async def answer(request: web.Request) -> web.Response:
        name = request.match_info["name"] or "index.html"
        if name not in files:
            raise web.HTTPNotFound
        return web.Response(text=files[name], content_type=_TYPES[name.rpartition(".")[2]])

    app = web.Application()
    app.add_routes([*routes, web.get("/{name:.*}", answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = port or free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def with_ours(page: str, *pairs: tuple[str, str]) -> str:
    """The page with our text in place of each documented one, which it has once."""
    for documented, ours in pairs:
        assert page.count(documented) == 1, documented
        page = page.replace(documented, ours)
    return page
