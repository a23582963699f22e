"""Webhooks of an installation whose only way out is a forward proxy."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.forward_proxy import ForwardProxy, forward_proxy
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import wait_until
from tests.outbound.receivers import receiving, status

PASSWORD = "Zq7xWvKj"


@contextmanager
def proxy_in_a_thread() -> Iterator[ForwardProxy]:
    """It outlives the event loops of single tests, as the installation does."""
    ready, found, ended = threading.Event(), list[ForwardProxy](), list[asyncio.Event]()

    async def serve() -> None:
        async with forward_proxy() as proxy:
            ended.append(asyncio.Event())
            found.append(proxy)
            ready.set()
            await ended[0].wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ended[0].set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[ForwardProxy]:
    with proxy_in_a_thread() as found:
        yield found


@pytest.fixture(scope="module")
def behind(proxy: ForwardProxy, redis_like: RedisLike | None) -> Iterator[Stack]:
    with running_stack(
        gateways=1,
        edges=0,
        dispatchers=1,
        redis_like=redis_like,
        ALLOW_PRIVATE_CALLBACKS="127.0.0.1/32",
        EGRESS_PROXY=proxy.url(credentials=f"gateway:{PASSWORD}"),
    ) as stack:
        yield stack
        for service in stack.services:
            assert PASSWORD not in service.stdout + service.stderr


@pytest.fixture
async def mine(behind: Stack, http: aiohttp.ClientSession) -> AccountChannels:
    api = Api(http, behind.gateways[0].url, behind.admin_token)
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels", "receive")))


async def test_a_webhook_is_reached_through_the_proxy(mine: AccountChannels, proxy: ForwardProxy) -> None:
    async with receiving(status(200)) as receiver:
        channel = (await mine.create("webhook", bindings=["a.b"], webhook={"url": receiver.url()}))["id"]
        await mine.api.publish(mine.key, {"topic": "a.b", "data": 1})

        await wait_until(lambda: receiver.bodies, what="the delivery")
        await mine.until(channel, pending=0)

    assert f"CONNECT 127.0.0.1:{receiver.port}" in proxy.asked
    assert receiver.header("proxy-authorization") == []


async def test_a_private_target_is_refused_though_the_proxy_could_reach_it(
    mine: AccountChannels, proxy: ForwardProxy
) -> None:
    """127.0.0.2 is not among the networks that the operator has allowed; the proxy has no such rule."""
    async with receiving(status(200), host="127.0.0.2") as receiver:
        target = {"url": receiver.url("127.0.0.2")}
        channel = (await mine.create("webhook", bindings=["a.b"], webhook=target))["id"]
        await mine.api.publish(mine.key, {"topic": "a.b", "data": 1})
        attempts: list[dict[str, object]] = []

        async def is_refused() -> bool:
            attempts[:] = (await mine.call("GET", f"/{channel}/deliveries")).json["deliveries"]
            return bool(attempts)

        await wait_until(is_refused, what="an attempt")
        await mine.do(channel, "pause")

    assert attempts[0]["error"] == "address-refused"
    assert receiver.connections == 0
    assert not [each for each in proxy.asked if "127.0.0.2" in each]


async def test_the_test_request_of_a_registration_goes_through_the_proxy(
    mine: AccountChannels, proxy: ForwardProxy
) -> None:
    async with receiving(status(200)) as receiver:
        answer = await mine.api.put_callback(mine.key, receiver.url())

    assert answer.status == 204, answer.text
    assert receiver.bodies == [b"{}"]
    assert f"CONNECT 127.0.0.1:{receiver.port}" in proxy.asked
