"""WebSocket clients of Python, npm and Node: handshake, acks, pings and closes.

Some separate the subprotocols by a comma and a space, some by a comma.
"""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import aiohttp
import pytest

from tests.clients.node_clients import NodeLibrary, installed, native
from tests.clients.stock import (
    Aiohttp,
    Library,
    Offer,
    Socket,
    WebsocketClient,
    Websockets,
    as_browsers_do,
    key_first,
    with_header,
)
from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings

PYTHON: list[type[Library]] = [Websockets, Aiohttp, WebsocketClient]
NODE = ["ws", "websocket", "w3c", "native"]


@pytest.fixture(params=[*(library.name for library in PYTHON), *NODE])
def library(request: pytest.FixtureRequest) -> Library:
    found = next((each() for each in PYTHON if each.name == request.param), None)
    if found is not None:
        return found
    if request.param == "native":
        return native()
    return NodeLibrary(request.param, installed(request.config.cache.mkdir("npm")))


class Open(Protocol):
    """Opens a socket of the library and closes it at the end of the test."""

    async def __call__(self, offer: Offer) -> Socket: ...


@pytest.fixture
async def connect(library: Library) -> AsyncIterator[Open]:
    opened: list[Socket] = []

    async def open_socket(offer: Offer) -> Socket:
        opened.append(await library.open(offer))
        return opened[-1]

    yield open_socket
    for socket in opened:
        await socket.close()


@pytest.fixture
async def channel(api: Api, key: ApiKey) -> ApiKey:
    await api.register(key)
    return key


@pytest.mark.parametrize(
    ("offer", "selected"), [(as_browsers_do, "wss"), (key_first, "wss"), (with_header, None)]
)
async def test_handshake_delivery_and_acks(
    origin: AllInOne,
    api: Api,
    channel: ApiKey,
    connect: Open,
    offer: Callable[[str, ApiKey], Offer],
    selected: str | None,
) -> None:
    """Clients fail if the server selects a subprotocol that they did not offer."""
    socket = await connect(offer(origin.url, channel))
    assert socket.subprotocol == selected

    await api.publish(channel, *readings(range(500), to=channel.id, padding=400))

    await socket.has(range(500))
    await api.until(channel, status="connected", queue_size=0)
    assert len(socket.messages) > 1


async def test_client_pings_get_pongs(
    origin: AllInOne, api: Api, channel: ApiKey, library: Library, connect: Open
) -> None:
    socket = await connect(with_header(origin.url, channel))
    if library.pings:
        for payload in (b"ping", b"p" * 125):
            await socket.ping_and_wait(payload)

    # The server must not take these pings for pongs.
    await api.publish(channel, *readings(range(3), to=channel.id))
    await socket.has(range(3))
    await api.until(channel, queue_size=0)


async def test_newest_socket_takes_over(origin: AllInOne, api: Api, channel: ApiKey, connect: Open) -> None:
    older = await connect(as_browsers_do(origin.url, channel))
    await api.publish(channel, *readings(range(3), to=channel.id))
    await older.has(range(3))
    await api.until(channel, queue_size=0)

    newer = await connect(as_browsers_do(origin.url, channel))

    assert await older.closed() == 1001
    await api.publish(channel, *readings(range(3, 6), to=channel.id))
    await newer.has(range(3, 6))
    assert older.numbers == [0, 1, 2]


async def test_close_and_reconnect(origin: AllInOne, api: Api, channel: ApiKey, connect: Open) -> None:
    first = await connect(as_browsers_do(origin.url, channel))
    await first.close()
    await api.until(channel, status="disconnected")
    await api.publish(channel, *readings(range(3), to=channel.id))

    second = await connect(as_browsers_do(origin.url, channel))

    await second.has(range(3))
    await api.until(channel, queue_size=0)


async def test_a_key_without_a_channel_is_closed_with_1011(
    origin: AllInOne, api: Api, key: ApiKey, connect: Open
) -> None:
    """Clients register after this code, but not after an HTTP error."""
    assert await (await connect(as_browsers_do(origin.url, key))).closed() == 1011

    await api.register(key)
    socket = await connect(as_browsers_do(origin.url, key))
    await api.publish(key, *readings(range(3), to=key.id))
    await socket.has(range(3))


@pytest.mark.parametrize(
    ("arrival", "count"), [("before", 60), ("one by one", 2), ("one by one", 20), ("together", 60)]
)
async def test_nothing_that_was_read_comes_again_after_a_close(
    origin: AllInOne, api: Api, channel: ApiKey, connect: Open, arrival: str, count: int
) -> None:
    """It closes as soon as it has read, and opens its next socket as soon as that is closed."""
    numbers = range(count)
    if arrival == "before":
        await api.publish(channel, *readings(numbers, to=channel.id))
    first = await connect(with_header(origin.url, channel))
    if arrival == "together":
        await api.publish(channel, *readings(numbers, to=channel.id))
    if arrival == "one by one":
        for number in numbers:
            await api.publish(channel, reading(number, to=channel.id))
    await first.has(numbers)

    await first.close()

    second = await connect(with_header(origin.url, channel))
    await api.publish(channel, reading(count, to=channel.id))
    await second.has([count])


async def test_deleting_the_channel_closes_the_socket(
    origin: AllInOne, api: Api, channel: ApiKey, connect: Open
) -> None:
    socket = await connect(as_browsers_do(origin.url, channel))

    assert (await api.delete_channel(channel)).status == 204

    assert await socket.closed() == 1001


async def test_pings_of_aiohttp(origin: AllInOne, channel: ApiKey, http: aiohttp.ClientSession) -> None:
    """aiohttp reports pongs only with `autoping=False`."""
    offer = with_header(origin.url, channel)
    async with http.ws_connect(offer.url, headers=offer.headers, autoping=False) as socket:
        await socket.ping(b"ping")

        response = await socket.receive(timeout=20)

        assert (response.type, response.data) == (aiohttp.WSMsgType.PONG, b"ping")
