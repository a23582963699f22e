"""Shutdown: a service closes its connections, finishes what it has begun, and exits in time."""

import asyncio
import re
import signal
import time
from operator import ge

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from shared.version import build_line
from tests.conftest import Listen, ListenSilently, Start
from tests.faults.handmade import Line
from tests.harness.api import Api
from tests.harness.events import readings
from tests.harness.sockets import Receiver
from tests.harness.waiting import wait_until

COUNT = 20_000


async def test_shutdown_during_a_backlog_acks_exactly_what_the_client_confirmed(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=2)
    stopping = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    for begin in range(0, COUNT, 5000):
        await api.publish(key, *readings(range(begin, begin + 5000), to=key.id))

    first = await listen(key, stopping.url)
    await wait_until(lambda: len(first.numbers) >= COUNT // 10)
    stopping.terminate()

    assert await first.closed(within_s=10) == 1001
    await wait_until(lambda: stopping.ended, within_s=10)
    assert stopping.exit_code == 0
    assert await api.status(key) == "disconnected"
    acked = COUNT - await api.queue_size(key)
    assert acked == first.acked_until, "exactly what the client confirmed is acked"
    second = await listen(key, stack.edges[1].url)
    await second.received_numbers(range(acked, COUNT))
    assert acked < COUNT
    assert first.numbers == [*range(acked)], "nothing is sent twice"
    assert "Traceback" not in stopping.stderr


async def test_pongs_during_the_closing_handshake_still_ack(
    start: Start, http: aiohttp.ClientSession, listen_silently: ListenSilently
) -> None:
    """A client answers its pings in order and then the close frame."""
    stack = start(edges=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    client = await listen_silently(key, stack.edges[0].url)
    await api.publish(key, *readings(range(1), to=key.id))
    await wait_until(lambda: client.numbers == [0] and client.pings)
    await api.publish(key, *readings(range(1, 3), to=key.id))
    await wait_until(lambda: client.numbers == [*range(3)])

    stack.edges[0].terminate()
    await wait_until(lambda: client.close_code == 1001)
    for payload in client.pings:
        await client.pong(payload)
    await client.answer_close()

    await wait_until(lambda: stack.edges[0].ended, within_s=10)
    assert await api.queue_size(key) == 0


async def test_shutdown_waits_for_close_frames_for_a_limited_time(
    start: Start, http: aiohttp.ClientSession, listen_silently: ListenSilently
) -> None:
    stack = start(edges=1)
    stopping = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    silent = await listen_silently(key, stopping.url)
    await api.publish(key, *readings(range(3), to=key.id))
    await wait_until(lambda: silent.numbers == [*range(3)])

    began = time.monotonic()
    stopping.terminate()
    await wait_until(lambda: silent.close_code == 1001)
    assert stopping.get("/readyz") == 503
    assert stopping.get("/livez") == 200
    with pytest.raises(InvalidStatus) as refused:
        await Receiver.open(stopping.url, key)
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"]

    await wait_until(lambda: stopping.ended, within_s=10)
    assert time.monotonic() - began < 10
    assert stopping.exit_code == 0
    assert silent.ended
    assert await api.status(key) == "disconnected"
    assert await api.queue_size(key) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_services_exit_at_once(start: Start, number: signal.Signals) -> None:
    stack = start(edges=1)
    for service in stack.services:
        service.signal(number)

    await wait_until(lambda: all(service.ended for service in stack.services), within_s=10)

    assert [service.exit_code for service in stack.services] == [0, 0]
    assert all("Traceback" not in service.stderr for service in stack.services)


async def test_a_gateway_finishes_requests_in_progress(start: Start, http: aiohttp.ClientSession) -> None:
    """Each request in progress gets a response, and everything with a 202 is queued."""
    stack = start(edges=0, gateways=2)
    staying = Api(http, stack.gateways[1].url, stack.admin_token)
    key = await staying.api_key()
    await staying.register(key)
    accepted = 0

    async def publish() -> None:
        nonlocal accepted
        api = Api(http, stack.gateways[0].url, stack.admin_token)
        while True:
            try:
                response = await api.post_events(key, readings(range(50), to=key.id))
            except aiohttp.ClientConnectionError:
                return
            assert response.status in (202, 503), response
            if response.status == 202:
                accepted += 50

    publishers = [asyncio.create_task(publish()) for _ in range(4)]
    await wait_until(lambda: accepted >= 500)
    stack.gateways[0].terminate()

    await asyncio.wait_for(asyncio.gather(*publishers), 20)
    await wait_until(lambda: stack.gateways[0].ended, within_s=10)
    assert stack.gateways[0].exit_code == 0
    assert await staying.queue_size(key) >= accepted


@pytest.mark.long
async def test_dispatcher_and_reaper_stop_at_any_moment(start: Start) -> None:
    """Their workers call Redis all the time; the signal arrives in the middle of a call."""
    stack = start(gateways=0, edges=0, dispatchers=1, reapers=1)
    services = [*stack.dispatchers, *stack.reapers]
    for _ in range(8):
        for service in services:
            service.terminate()
        await wait_until(lambda: all(service.ended for service in services), within_s=10)
        assert [service.exit_code for service in services] == [0, 0]
        for service in services:
            service.start()
        for service in services:
            service.wait_ready()


async def test_draining_closes_sockets_evenly_and_refuses_new_ones(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    """/readyz fails first, for load balancers to see; then the sockets close one after the other."""
    delay_s, window_s, count = 1, 3, 12
    stack = start(edges=1, DRAIN_DELAY_S=delay_s, DRAIN_WINDOW_S=window_s)
    stopping = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    account = await api.account()
    keys = [await api.api_key(account=account) for _ in range(count)]
    for key in keys:
        await api.register(key)
    receivers = [await listen(key, stopping.url) for key in keys]

    began_s = time.monotonic()
    stopping.terminate()
    await wait_until(lambda: stopping.get("/readyz") == 503)
    assert all(receiver.open_now for receiver in receivers), "DRAIN_DELAY_S has not passed"
    await wait_until(lambda: not all(receiver.open_now for receiver in receivers))

    async def counts_the_closed_one() -> bool:
        shown = (await api.at(stopping.url).call("GET", "/metrics")).text
        assert re.search(r"^notify_draining 1\.0$", shown, flags=re.M)
        [remain] = re.findall(r"^notify_sockets ([\d.]+)$", shown, flags=re.M)
        return 0 < float(remain) < len(receivers)

    await wait_until(counts_the_closed_one)
    with pytest.raises(InvalidStatus) as refusal:
        await listen(keys[0], stopping.url)
    assert refusal.value.response.status_code == 503
    assert int(refusal.value.response.headers["Retry-After"]) >= 1
    assert [await receiver.closed(within_s=15) for receiver in receivers] == [1001] * count
    after_s = sorted((receiver.closed_at or 0) - began_s for receiver in receivers)
    turns_s = [delay_s + window_s * turn / count for turn in range(1, count + 1)]
    assert all(map(ge, after_s, turns_s)), f"none before its turn: {after_s}"
    await wait_until(lambda: stopping.ended, within_s=15)
    assert stopping.exit_code == 0


async def test_a_draining_edge_ends_kept_connections(start: Start) -> None:
    """A proxy that keeps one would stay with an edge that answers 503, for as long as it drains."""
    stack = start(edges=1, DRAIN_DELAY_S=600)
    edge = stack.edges[0]
    requests = {
        "/readyz": b"HTTP/1.1 503 ",
        "/v2/notification/pull": b"HTTP/1.1 401 ",
        "/livez": b"HTTP/1.1 200 ",
        "/nothing": b"HTTP/1.1 404 ",
    }
    lines = [await Line.open(edge.url) for _ in requests]
    for line in lines:
        await line.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await line.read_until(f"ok\n{build_line()}\n".encode())
        assert b"connection: close" not in head.lower()
    edge.terminate()
    await wait_until(lambda: edge.get("/readyz") == 503)

    for line, (path, status) in zip(lines, requests.items(), strict=True):
        await line.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        response = await line.rest()
        line.close()
        assert response.startswith(status), response
        assert b"\r\nconnection: close\r\n" in response.lower()
