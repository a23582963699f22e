"""A push gets a 200 only after its edge has taken it; a hanging edge makes it a 503."""

import asyncio
import json

import aiohttp
from websockets.asyncio.client import connect

from tests.conftest import Start
from tests.harness.api import Api
from tests.stories.test_errors import assert_error

PATH = "/api/v1/websocket/session"


async def test_a_push_to_a_hanging_edge_is_a_503_and_is_not_sent_later(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=1, HEARTBEAT_TTL_S=30)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    credentials = {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}
    url = stack.edges[0].url.replace("http", "ws", 1) + "/api/v1/websocket"
    async with connect(url, additional_headers=credentials, proxy=None) as socket:
        session = json.loads(await asyncio.wait_for(socket.recv(), 20))["session"]
        stack.edges[0].freeze()

        refused = await api.call("POST", f"{PATH}?session={session}", data=b'"too late"')

        stack.edges[0].thaw()
        assert_error(refused, 503, "service_unavailable")
        assert refused.headers["Retry-After"] == "1"
        response = await api.call("POST", f"{PATH}?session={session}", data=b'"in time"')
        assert response.status == 200
        # The push with the 503 was withdrawn.
        assert await asyncio.wait_for(socket.recv(), 20) == '"in time"'
