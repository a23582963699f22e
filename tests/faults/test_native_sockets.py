"""Native sockets while Redis is away, when their edge dies or stops, and when clients vanish."""

import asyncio

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.metrics import metric
from tests.harness.native import NativeSocket, native_socket, open_native
from tests.harness.sse import OTHER, TOPIC, keep, publish
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until

READ = ["orders.#"]


@pytest.fixture
async def stack(start: Start) -> Stack:
    return start(edges=2, STREAM_BUFFER_BYTES=64 * 1024 * 1024)


@pytest.fixture
async def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, stack.gateways[0].url, stack.admin_token)


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    made = await api.api_key(scopes=("publish", "channels", "admin"))
    await keep(api, made, *READ)
    return made


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    return await issuer(api, admin)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_sockets_outlive_an_outage_of_redis(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer, how: str
) -> None:
    token = back_end.token(read=READ, publish=READ)
    valkey = stack.valkey
    async with native_socket(stack.edges[0].url, token=token) as socket:
        await socket.ask(subscribe={"topic": TOPIC})
        await publish(api, admin, 1)
        await socket.until_data([1])
        if how == "killed":
            valkey.kill()
        else:
            valkey.freeze()
        refused = [
            await socket.begin(subscribe={"topic": OTHER}),
            await socket.begin(refresh={"token": token}),
        ]
        refused += [await socket.begin(publish={"events": [{"topic": OTHER, "data": 0}]})]
        pinged = await socket.begin(ping={})
        for ref in refused:
            answer = await socket.answer(ref, within_s=60)
            assert answer["error"]["code"] == "unavailable", answer
            assert answer["error"]["retry_after_s"] >= 1
        assert (await socket.answer(pinged))["pong"] == {}
        if how == "killed":
            valkey.start()
            valkey.wait_ready()
        else:
            valkey.thaw()

        async def is_published() -> bool:
            return (await api.post_events(admin, [{"topic": TOPIC, "data": 2}])).status == 202

        await wait_until(is_published)
        await wait_until(lambda: 2 in socket.data, what=lambda: socket.frames[-3:])
        assert socket.data[:2] == [1, 2]
        assert all(told["recovered"]["recovered"] for told in socket.of("recovered"))
        await wait_until(lambda: subscribed(socket, OTHER), within_s=30)
        assert not socket.has_ended


async def subscribed(socket: NativeSocket, topic: str) -> bool:
    answer = await socket.answer(await socket.begin(subscribe={"topic": topic}))
    return "subscribed" in answer


async def test_a_client_whose_edge_dies_misses_nothing(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    token = back_end.token(read=READ)
    async with native_socket(stack.edges[0].url, token=token) as first:
        begun = await first.ask(subscribe={"topic": TOPIC})
        await publish(api, admin, 1, 2)
        await first.until_data([1, 2])
        stack.edges[0].kill()
        assert (await first.closed())[0] == 1006
    await publish(api, admin, 3)
    epoch = [told["recovered"]["epoch"] for told in first.of("recovered")][-1:] or [begun["epoch"]]
    place = {"topic": TOPIC, "epoch": epoch[0], "after": first.of("event")[-1]["offset"]}
    async with native_socket(stack.edges[1].url, token=token) as again:
        assert (await again.ask(subscribe=place))["recovered"] is True
        await publish(api, admin, 4)
        await again.until_data([3, 4])


async def test_a_stop_does_not_wait_for_a_client_that_reads_nothing(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    edge, token = stack.edges[0], back_end.token(read=READ)
    silent = await open_native(edge.url, bearer=token)
    async with native_socket(edge.url, token=token) as socket:
        for each in (silent, socket):
            await each.ask(subscribe={"topic": TOPIC})
        silent.pause()
        for number in range(40):
            await publish(api, admin, [number, "x" * 200_000])
        await wait_until(lambda: len(socket.data) == 40)
        edge.terminate()
        assert (await socket.closed())[0] == 1012
        await wait_until(lambda: edge.ended, within_s=15)
    assert edge.exit_code == 0
    assert "Traceback" not in edge.stderr
    await silent.drop()


async def test_clients_that_come_and_go_leave_nothing(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer, http: aiohttp.ClientSession
) -> None:
    """Also those that vanish while they authenticate or subscribe."""
    edge, token = stack.edges[0], back_end.token(read=READ, publish=READ)

    async def comes_and_goes(number: int) -> None:
        socket = await open_native(edge.url)
        await socket.begin(auth={"token": token})
        await socket.begin(subscribe={"topic": TOPIC})
        ref = await socket.begin(publish={"events": [{"topic": TOPIC, "data": number}]})
        if number % 2:
            await socket.answer(ref)
        if number % 3:
            await socket.drop()
        else:
            await socket.close()

    for _ in range(3):
        await asyncio.gather(*map(comes_and_goes, range(20)))

    async def none_is_left() -> bool:
        readers = await metric(http, edge.url, "notify_stream_readers")
        held = await metric(http, edge.url, "notify_sessions", dialect="native")
        return readers == held == await metric(http, edge.url, "notify_sockets_unauthenticated") == 0

    await wait_until(none_is_left)
    assert "Traceback" not in edge.stderr
    async with native_socket(edge.url, token=token) as socket:
        await socket.ask(subscribe={"topic": TOPIC})
        await publish(api, admin, "last")
        await wait_until(lambda: "last" in socket.data)
