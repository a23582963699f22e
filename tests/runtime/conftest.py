import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.server import ServerState

from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.protocol import HttpProtocol
from tests.runtime.hot_routes import Client, Route


@pytest.fixture
async def route() -> Route:
    return Route()


@pytest.fixture
async def protocols() -> list[HttpProtocol]:
    return []


@pytest.fixture
async def client(route: Route, protocols: list[HttpProtocol]) -> AsyncIterator[Client]:
    config = uvicorn.Config(route.app, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def connected() -> asyncio.Protocol:
        made = HttpProtocol(
            config=config,
            server_state=state,
            app_state={},
            arrivals=Arrivals(most=10, most_per_address=10, trusted=()),
            hot_routes={(b"POST", b"/hot"): route},
        )
        protocols.append(made)
        return made

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    yield client
    client.writer.close()
    server.close()
