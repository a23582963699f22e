"""Hostile clients that speak valid WebSocket: they cost little memory and do not affect others."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Protocol

import aiohttp
import pytest
from websockets.frames import Opcode

from shared.model.api_keys import new_id, new_secret
from tests.conftest import Listen, Start
from tests.faults.handmade import HandmadeSocket, as_sent
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.processes import Service
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

MIB = 1024 * 1024
FLOOD = [as_sent(Opcode.PONG) * 10_000] * 70
"""4 MB of the shortest frames."""
GROWTH_LIMIT_BYTES = 20 * MIB
"""A queued flood would take more than twice as much."""


class Connect(Protocol):
    """Opens a raw socket on the edge and closes it at the end of the test."""

    def __call__(
        self, secret: str, *, url: str | None = None, receive_buffer: int | None = None
    ) -> Awaitable[HandmadeSocket]: ...


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=1) as stack:
        yield stack


@pytest.fixture
def edge(installation: Stack) -> Service:
    return installation.edges[0]


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    opened: list[HandmadeSocket] = []

    async def open_socket(
        secret: str, *, url: str | None = None, receive_buffer: int | None = None
    ) -> HandmadeSocket:
        url = url or request.getfixturevalue("edge").url
        opened.append(await HandmadeSocket.connect(url, secret, receive_buffer=receive_buffer))
        return opened[-1]

    yield open_socket
    for client in opened:
        client.close()


async def flood(client: HandmadeSocket) -> int:
    """Sends FLOOD until the connection is cut; returns the number of bytes sent."""
    sent = 0
    for part in FLOOD:
        if not await client.write(part):
            break
        sent += len(part)
    return sent


@pytest.mark.long
async def test_a_flood_of_pongs_on_a_refused_socket(edge: Service, connect: Connect) -> None:
    """The edge has stopped reading; the client has 5 s for its close frame."""
    client = await connect(new_secret(new_id()))
    assert (await client.frame())[0] is Opcode.CLOSE
    before = edge.rss_bytes

    sent = await flood(client)
    await client.rest()
    growth = edge.peak_rss_bytes - before
    print(f"{sent / 1e6:.1f} MB of pongs; the edge grew by {growth / 1e6:.1f} MB")
    assert sent > 0
    assert growth < GROWTH_LIMIT_BYTES
    assert edge.get("/livez") == 200


async def test_a_flood_of_pongs_on_an_open_socket(
    api: Api, channel: ApiKey, edge: Service, connect: Connect, listen: Listen
) -> None:
    client = await connect(channel.secret)
    other = await api.api_key()
    await api.register(other)
    bystander = await listen(other, edge.url)
    before = edge.rss_bytes

    flooding = asyncio.create_task(flood(client))
    await api.publish(other, *readings(range(100), to=other.id))
    await bystander.received_numbers(range(100))
    growth = edge.peak_rss_bytes - before
    print(f"the edge grew by {growth / 1e6:.1f} MB")
    assert growth < GROWTH_LIMIT_BYTES
    assert await api.status(channel) == "connected", "the flood is slowed down, not cut"
    flooding.cancel()


async def test_the_right_pong_acks_among_many(api: Api, channel: ApiKey, connect: Connect) -> None:
    client = await connect(channel.secret)

    await api.publish(channel, reading(1, to=channel.id))
    opcode, text = await client.frame()
    assert (opcode, number_of(json.loads(text)["notifications"][0])) == (Opcode.TEXT, 1)
    opcode, payload = await client.frame()
    assert opcode is Opcode.PING
    await client.write(as_sent(Opcode.PONG, b"not asked"[: len(payload)]) * 400)
    assert await api.queue_size(channel) == 1
    await client.write(as_sent(Opcode.PONG, payload) * 400)
    await api.until(channel, queue_size=0)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY], ids=lambda opcode: opcode.name)
async def test_an_endless_message_of_empty_fragments(
    api: Api, channel: ApiKey, edge: Service, connect: Connect, opcode: Opcode
) -> None:
    """Empty fragments never reach the limit of a message's size."""
    client = await connect(channel.secret)
    before = edge.rss_bytes

    await client.send(opcode, final=False)
    await client.write(as_sent(Opcode.CONT, final=False) * 100_000)

    await client.rest()
    await api.until(channel, status="disconnected")
    growth = edge.peak_rss_bytes - before
    assert growth < GROWTH_LIMIT_BYTES
    assert "Traceback" not in edge.stderr


async def test_a_fragmented_message_is_ignored(api: Api, channel: ApiKey, connect: Connect) -> None:
    client = await connect(channel.secret)

    for _ in range(20):
        await client.send(Opcode.TEXT, b"a", final=False)
        for _ in range(50):
            await client.send(Opcode.CONT, b"b", final=False)
        await client.send(Opcode.CONT, b"c")
    await client.send(Opcode.PING, b"still there?")

    assert await client.frame() == (Opcode.PONG, b"still there?")
    assert await api.status(channel) == "connected"


async def test_a_closing_client_that_does_not_read_does_not_block_shutdown(
    start: Start, http: aiohttp.ClientSession, connect: Connect
) -> None:
    """The edge's close frame is behind megabytes that the client never reads."""
    stack = start(edges=1, IN_FLIGHT_BYTES=16 * MIB)
    [edge] = stack.edges
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    client = await connect(key.secret, url=edge.url, receive_buffer=65_536)
    total, size = 180, 180_000
    for first in range(0, total, 30):
        await api.publish(key, *readings(range(first, first + 30), to=key.id, padding=size))

    # Ack until the window is wide, then let the edge send more than the kernel's buffers take.
    read = 0
    while read < 110:
        opcode, payload = await client.frame()
        if opcode is Opcode.PING:
            await client.send(Opcode.PONG, payload)
        read += opcode is Opcode.TEXT
    await wait_until(lambda: sent_by(edge) - read >= 60)
    await client.send_close()
    await wait_until(lambda: "socket.closed" in edge.stderr + edge.stdout)
    edge.terminate()

    await wait_until(lambda: edge.ended, within_s=10)
    assert edge.exit_code == 0
    assert "Traceback" not in edge.stderr


def sent_by(edge: Service) -> int:
    """The edge's counter of sent notifications."""
    with urllib.request.urlopen(f"{edge.url}/metrics", timeout=20) as response:
        found = re.search(r"^notify_sent_total\S* ([\d.e+]+)", response.read().decode(), re.MULTILINE)
    return int(float(found[1])) if found else 0
