"""A push is answered when the socket's edge took it: an edge that hangs makes it a 503, never a false 200."""

import asyncio
import json

import aiohttp
from websockets.asyncio.client import connect

from tests.conftest import Start
from tests.harness.api import Api
from tests.stories.test_errors import assert_error

PATH = "/api/v1/websocket/session"


async def test_an_edge_that_hangs(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=1, HEARTBEAT_TTL_S=30)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    credentials = {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}
    url = stack.edges[0].url.replace("http", "ws", 1) + "/api/v1/websocket"
    async with connect(url, additional_headers=credentials, proxy=None) as socket:
        session = json.loads(await asyncio.wait_for(socket.recv(), 20))["session"]
        stack.edges[0].freeze()

        hung = await api.call("POST", f"{PATH}?session={session}", data=b'"too late"')

        stack.edges[0].thaw()
        assert_error(hung, 503, "service_unavailable")
        assert hung.headers["Retry-After"] == "1"
        response = await api.call("POST", f"{PATH}?session={session}", data=b'"in time"')
        assert response.status == 200
        # What was answered with a 503 had not been taken, and is not sent afterwards.
        assert await asyncio.wait_for(socket.recv(), 20) == '"in time"'
