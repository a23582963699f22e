"""A customer's webhook: an HTTP server that records requests, and responds as a test says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.harness.processes import free_port


@dataclass
class Call:
    """One request. `at_once`: how many were under way then, with this one."""

    at_s: float
    headers: Mapping[str, str]
    body: bytes
    at_once: int
    method: str = "PUT"

    @property
    def message(self) -> dict[str, list[Any]]:
        """The NotificationMessage."""
        found: dict[str, list[Any]] = json.loads(self.body)
        return found

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[Call], Awaitable[web.StreamResponse]]


async def _accepted(_: Call) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Webhook:
    """What has arrived so far. `answer` may be replaced at any time; the test request is always accepted."""

    port: int
    answer: Answer = _accepted
    calls: list[Call] = field(default_factory=list)
    tests: int = 0
    under_way: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/callback"

    @property
    def items(self) -> list[Any]:
        """All notifications in order, including those of retries."""
        return [item for call in self.calls for items in call.message.values() for item in items]

    @property
    def events(self) -> list[dict[str, Any]]:
        """All CloudEvents in order, one a request or in arrays, including those of retries."""
        bodies = [json.loads(call.body) for call in self.calls]
        return [event for body in bodies for event in (body if isinstance(body, list) else [body])]

    def says(self, status: int, **headers: str) -> None:
        """Responds with this status from now on."""

        async def answer(_: Call) -> web.StreamResponse:
            return web.Response(status=status, headers=headers)

        self.answer = answer

    def hangs(self) -> None:
        """Does not respond from now on."""

        async def answer(_: Call) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        self.answer = answer

    def takes(self) -> None:
        self.answer = _accepted

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if body == b"{}":
            self.tests += 1
            return web.Response(status=200)
        self.under_way += 1
        try:
            now_s = asyncio.get_running_loop().time()
            call = Call(now_s, request.headers, body, self.under_way, request.method)
            self.calls.append(call)
            return await self.answer(call)
        finally:
            self.under_way -= 1


@contextlib.asynccontextmanager
async def webhook(port: int | None = None) -> AsyncIterator[Webhook]:
    """A webhook on a free port, unless one is given."""
    receiver = Webhook(port or free_port())
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", receiver.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", receiver.port).start()
        yield receiver
    finally:
        await runner.cleanup()
