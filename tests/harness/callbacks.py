"""A receiver of endpoint verifications: a web server that records requests, and responds as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web


@dataclass(frozen=True)
class Called:
    """One request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Hook:
    """Responds with `status` and `headers`; while `open` is cleared it does not."""

    def __init__(self) -> None:
        self.called: list[Called] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.origin = ""

    @property
    def url(self) -> str:
        return f"{self.origin}/hook"

    async def take(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.called.append(Called(request.method, request.path_qs, request.headers, body))
        await self.open.wait()
        return web.Response(status=self.status, headers=self.headers)


@contextlib.asynccontextmanager
async def running_hook() -> AsyncIterator[Hook]:
    """A receiver on a free port."""
    hook = Hook()
    runner = web.ServerRunner(web.Server(hook.take), shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        hook.origin = f"http://{host}:{port}"
        yield hook
    finally:
        hook.open.set()
        await runner.cleanup()
