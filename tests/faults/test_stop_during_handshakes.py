"""Shutdown while WebSocket handshakes arrive or are in progress: each gets a 101 or a 503."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import aiohttp
import pytest

from tests.conftest import Measured, Start
from tests.faults.handmade import Line
from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api, ApiKey
from tests.harness.processes import Service
from tests.harness.sockets import CONNECT_PATH
from tests.harness.waiting import wait_until

JOIN_PATH = "/api/v1/websocket"
COUNT = 20
UPGRADE = (
    "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Reply(NamedTuple):
    """The response to a handshake."""

    status: int
    headers: dict[str, str]
    body: str


def pelion(key: ApiKey) -> bytes:
    head = f"GET {CONNECT_PATH} HTTP/1.1\r\n{UPGRADE}Authorization: Bearer {key.secret}\r\n\r\n"
    return head.encode()


def cognism(key: ApiKey) -> bytes:
    credentials = f"X-Api-AccessToken: {key.id}\r\nX-Api-SecretKey: {key.secret}\r\n"
    return f"GET {JOIN_PATH}?pattern=%7B%7D HTTP/1.1\r\n{UPGRADE}{credentials}\r\n".encode()


def kazoo(_: ApiKey) -> bytes:
    """Needs no Redis."""
    return f"GET / HTTP/1.1\r\n{UPGRADE}\r\n".encode()


async def reply_on(line: Line) -> Reply:
    """Raises EOFError for a connection that is cut before the response."""
    first, *lines = (await line.read_until(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
    body = await line.read(int(headers.get("content-length", "0")))
    return Reply(int(first.split()[1]), headers, body.decode())


async def shake(url: str, data: bytes, *, pause_s: float = 0) -> Reply:
    """One handshake; with a pause, in two pieces."""
    line = await Line.open(url)
    try:
        if pause_s:
            await line.write(data[:40])
            await asyncio.sleep(pause_s)
            data = data[40:]
        await line.write(data)
        return await reply_on(line)
    finally:
        line.close()


async def begun(server: Service | AllInOne, handshakes: list[bytes]) -> list[asyncio.Task[Reply]]:
    """Handshakes that wait for Redis: a later request was responded to, and they were not."""
    lines = [await Line.open(server.url) for _ in handshakes]

    async def reply(line: Line) -> Reply:
        try:
            return await reply_on(line)
        finally:
            line.close()

    for line, handshake in zip(lines, handshakes, strict=True):
        await line.write(handshake)
    tasks = [asyncio.create_task(reply(line)) for line in lines]
    # The first only shows that the server has their bytes.
    for _ in range(2):
        assert await asyncio.to_thread(server.get, "/livez") == 200
    assert not any(task.done() for task in tasks)
    return tasks


def assert_accepted_or_draining(replies: list[Reply]) -> Counter[int]:
    for reply in replies:
        assert reply.status in (101, 503), reply
        if reply.status == 503:
            assert int(reply.headers["retry-after"]) >= 1
            error = json.loads(reply.body)
            assert (error["code"], error["type"]) == (503, "service_unavailable")
            assert error["request_id"] == reply.headers["x-request-id"]
    return Counter(reply.status for reply in replies)


async def assert_ends_well(service: Service) -> None:
    await wait_until(lambda: service.ended, within_s=20)
    assert service.exit_code == 0
    assert "Traceback" not in service.stderr
    assert "socket.failed" not in service.stdout + service.stderr


@pytest.mark.parametrize("handshake", [pelion, cognism])
async def test_handshakes_that_wait_for_redis_get_a_503(
    start: Start, http: aiohttp.ClientSession, handshake: object, record_property: Measured
) -> None:
    assert callable(handshake)
    stack = start(edges=1)
    [edge] = stack.edges
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key() for _ in range(COUNT)]
    for key in keys:
        await api.register(key)
    stack.valkey.freeze()
    tasks = await begun(edge, [handshake(key) for key in keys])

    edge.terminate()

    replies = await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert assert_accepted_or_draining(replies) == {503: COUNT}
    record_property("handshakes in progress at SIGTERM", COUNT)
    await assert_ends_well(edge)
    stack.valkey.thaw()


async def test_handshakes_that_arrive_during_the_shutdown_get_101_or_503(
    start: Start, http: aiohttp.ClientSession, record_property: Measured
) -> None:
    """Redis stops and continues under them; some arrive in two pieces."""
    # Kazoo's have no credential.
    stack = start(edges=1, DRAIN_DELAY_S=1, DRAIN_WINDOW_S=0.5, HANDSHAKE_BURST_PER_ADDRESS=100_000)
    [edge] = stack.edges
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key() for _ in range(COUNT)]
    for key in keys:
        await api.register(key)
    replies: list[Reply] = []

    async def connect_again_and_again(number: int, key: ApiKey) -> None:
        handshake = (pelion, cognism, kazoo)[number % 3](key)
        while True:
            try:
                replies.append(await shake(edge.url, handshake, pause_s=0.1 * (number % 2)))
            except ConnectionRefusedError:
                return
            except EOFError:
                # The kernel may take a connection in the moment in which the port closes.
                with pytest.raises(ConnectionRefusedError):
                    await Line.open(edge.url)
                return
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(connect_again_and_again(*each)) for each in enumerate(keys)]
    await wait_until(lambda: len(replies) >= COUNT)
    edge.terminate()
    await wait_until(lambda: edge.get("/readyz") == 503)
    stack.valkey.freeze()
    await wait_until(lambda: any(reply.status == 503 for reply in replies))
    stack.valkey.thaw()

    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    seen = assert_accepted_or_draining(replies)
    assert seen[101]
    assert seen[503]
    record_property("handshakes around SIGTERM", dict(seen))
    await assert_ends_well(edge)


@pytest.fixture
def all_services() -> Iterator[AllInOne]:
    with all_in_one() as process:
        process.start()
        process.wait_ready()
        yield process


@pytest.fixture
async def lines() -> AsyncIterator[list[Line]]:
    lines: list[Line] = []
    yield lines
    for line in lines:
        line.close()


async def test_a_handshake_that_is_arriving_when_the_port_closes_gets_a_503(
    all_services: AllInOne, lines: list[Line], api_key_of_all: ApiKey
) -> None:
    """Connected, and with part of the head there, when SIGTERM comes."""
    lines += [await Line.open(all_services.url) for _ in range(3)]
    fresh, partial, used = lines
    handshake = pelion(api_key_of_all)
    await partial.write(handshake[:40])
    await used.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reply_on(used)).status == 200
    all_services.terminate()
    await wait_until(lambda: all_services.get("/livez") == 0)

    await fresh.write(handshake)
    await partial.write(handshake[40:])

    assert assert_accepted_or_draining([await reply_on(fresh), await reply_on(partial)]) == {503: 2}
    assert await used.rest() == b""
    await assert_ends_well(all_services)


@pytest.fixture
async def api_key_of_all(all_services: AllInOne, http: aiohttp.ClientSession) -> ApiKey:
    api = Api(http, all_services.url, all_services.admin_token)
    key = await api.api_key()
    await api.register(key)
    return key


async def test_all_in_one_answers_handshakes_that_wait_for_its_valkey(
    all_services: AllInOne, api_key_of_all: ApiKey
) -> None:
    """One of each secret proceeds at a time, so this is one handshake of each dialect."""
    [valkey] = all_services.valkeys
    os.kill(valkey, signal.SIGSTOP)
    try:
        handshakes = [pelion(api_key_of_all), cognism(api_key_of_all)]
        tasks = await begun(all_services, handshakes)
        all_services.terminate()

        replies = await asyncio.wait_for(asyncio.gather(*tasks), 20)
    finally:
        os.kill(valkey, signal.SIGCONT)

    assert assert_accepted_or_draining(replies) == {503: 2}
    await assert_ends_well(all_services)
