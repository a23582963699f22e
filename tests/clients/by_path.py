"""One host for a client that knows one: a proxy that divides by path, as the README says, and a device side.

The proxy sends what an origin refuses, or says it cannot take now, to the next one: as load balancers do.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

from tests.harness.api import Api, ApiKey
from tests.harness.events import payload

_OF_ONE_HOP = ("connection", "keep-alive", "transfer-encoding", "content-encoding", "date", "server")


@dataclass
class Proxy:
    """`origins_of` a path are tried in turn; `answered` keeps every path with its status."""

    origins_of: Callable[[str], list[str]]
    url: str = ""
    answered: list[tuple[str, int]] = field(default_factory=list)

    def statuses(self, path: str) -> list[int]:
        return [status for answered, status in self.answered if answered == path]


@contextlib.asynccontextmanager
async def proxy_by_path(origins_of: Callable[[str], list[str]]) -> AsyncIterator[Proxy]:
    proxy = Proxy(origins_of)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:

        async def serve(request: web.BaseRequest) -> web.Response:
            response = await _forwarded(http, request, proxy.origins_of(request.path))
            proxy.answered.append((request.path, response.status))
            return response

        async with _serving(serve) as proxy.url:
            yield proxy


async def _forwarded(
    http: aiohttp.ClientSession, request: web.BaseRequest, origins: list[str]
) -> web.Response:
    body = await request.read()
    response = web.Response(status=502)
    for origin in origins:
        url = URL(origin + request.path_qs, encoded=True)
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with http.request(request.method, url, headers=request.headers, data=body) as given:
                headers = {
                    name: text for name, text in given.headers.items() if name.lower() not in _OF_ONE_HOP
                }
                response = web.Response(status=given.status, headers=headers, body=await given.read())
            if response.status != 503:
                break
    return response


@dataclass
class DeviceSide:
    """Who speaks to the devices: one is registered, and what it answers is published by our own API."""

    api: Api
    key: ApiKey
    resource: tuple[str, str]
    value: str

    async def serve(self, request: web.BaseRequest) -> web.Response:
        device, path = self.resource
        match request.method, request.path:
            case "GET", "/v3/devices/":
                found = [{"object": "device", "id": device, "state": "registered"}]
                return web.json_response(
                    {"object": "list", "data": found, "has_more": False, "total_count": 1, "order": "ASC"}
                )
            case "GET", asked if asked == f"/v2/endpoints/{device}":
                return web.json_response([{"uri": path, "rt": "temperature", "type": "", "obs": True}])
            case "POST", asked if asked == f"/v2/device-requests/{device}":
                await self._answer(request.query["async-id"])
                return web.Response(status=202)
        return web.Response(status=404)

    async def _answer(self, async_id: str) -> None:
        data = {"id": async_id, "status": 200, "ct": "text/plain", "payload": payload(self.value)}
        await self.api.publish(self.key, {"topic": "device.async-responses", "data": data, "to": self.key.id})


@contextlib.asynccontextmanager
async def device_side(side: DeviceSide) -> AsyncIterator[str]:
    """The origin that it is served on."""
    async with _serving(side.serve) as url:
        yield url


@contextlib.asynccontextmanager
async def _serving(serve: Callable[[web.BaseRequest], object]) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(serve, handler_cancellation=True), shutdown_timeout=0)  # type: ignore[arg-type]
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
