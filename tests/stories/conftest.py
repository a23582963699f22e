"""Readers of streams, of an account of their own; and every frame of a story is a documented one."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.frames import SERVER, check_frame
from tests.harness.noted import NOTED
from tests.harness.sse import TOPIC, Read, StreamClient, bind, keep
from tests.harness.stack import Stack


@pytest.fixture(autouse=True)
def frames_are_documented() -> Iterator[None]:
    """Whatever a server says on a socket is a message of the AsyncAPI document."""
    NOTED.clear()
    yield
    for channel, frame in NOTED:
        check_frame(channel, SERVER, frame)


@pytest.fixture
async def stream_key(api: Api) -> ApiKey:
    """A key that publishes to streams of its account, and is bound to them."""
    made = await api.api_key(scopes=("publish", "receive", "channels"))
    await bind(api, made, "orders.#")
    await keep(api, made, "orders.#")
    return made


@pytest.fixture
async def read(stack: Stack, http: aiohttp.ClientSession, stream_key: ApiKey) -> AsyncIterator[Read]:
    """Opens a response, by default of the first edge for TOPIC, and waits until its topics have begun."""
    opened: list[StreamClient] = []

    async def read(
        *topics: str,
        url: str = "",
        by: ApiKey = stream_key,
        http: aiohttp.ClientSession = http,
        **options: Any,
    ) -> StreamClient:
        wanted = topics or (TOPIC,)
        opened.append(await StreamClient.open(http, url or stack.edges[0].url, by, *wanted, **options))
        await opened[-1].until_begun(len(wanted))
        return opened[-1]

    yield read
    for each in opened:
        await each.close()
