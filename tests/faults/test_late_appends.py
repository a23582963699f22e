"""A request under an Idempotency-Key that is stopped for longer than its mark lasts.

A repetition is carried out meanwhile. What the first run had sent, or sends when it goes on, is not queued.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from shared.store import keyspace
from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey, Response
from tests.harness.cluster import Cluster
from tests.harness.events import reading
from tests.harness.processes import Service
from tests.harness.proxy import Proxy, gateway_behind_proxy
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

REPLAYED = "Idempotent-Replayed"


async def post(api: Api, key: ApiKey, number: int, *, to: ApiKey) -> Response:
    event = reading(number, to=to.id) | {"receipt": True}
    headers = {"Idempotency-Key": f"order-{number}"}
    return await api.call("POST", "/v1/events", key=key, json=event, headers=headers)


async def accepted(api: Api, key: ApiKey, number: int, *, to: ApiKey) -> Response:
    """Publishes as events.md, section 7, tells publishers to: until the response is neither 409 nor 503."""
    responses: list[Response] = []

    async def is_accepted() -> bool:
        responses.append(await post(api, key, number, to=to))
        assert responses[-1].status in (202, 409, 503), responses[-1].text
        return responses[-1].status == 202

    await wait_until(is_accepted, within_s=60)
    return responses[-1]


@dataclass
class Scene:
    """A gateway behind a proxy that holds the append of its request, and another gateway."""

    stack: Stack
    proxy: Proxy
    gateway: Service
    first: Api
    other: Api
    key: ApiKey

    async def begin_and_hold_the_append(self) -> asyncio.Task[Response]:
        self.proxy.hold_from(reading(101)["data"]["payload"].encode())
        running = asyncio.create_task(post(self.first, self.key, 101, to=self.key))
        await self.proxy.until_it_holds()
        return running

    async def publish_past_it(self) -> Response:
        """The publisher repeats its request through the other gateway, and publishes what comes next."""
        response = await accepted(self.other, self.key, 101, to=self.key)
        assert REPLAYED not in response.headers
        assert (await accepted(self.other, self.key, 102, to=self.key)).status == 202
        return response

    async def assert_once_and_in_order(self, listen: Listen, response: Response) -> None:
        receiver = await listen(self.key, self.stack.edges[0].url)
        await receiver.received_numbers(range(100, 103))
        again = await accepted(self.first, self.key, 101, to=self.key)
        assert (again.text, again.headers[REPLAYED]) == (response.text, "true")
        await self.other.until(self.key, queue_size=0)
        assert receiver.numbers == [100, 101, 102]


@pytest.fixture
async def scene(start: Start, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    stack = start(edges=1, tcp=True)
    async with gateway_behind_proxy(stack) as (gateway, proxy):
        other = Api(http, stack.gateways[0].url, stack.admin_token)
        key = await other.api_key()
        await other.register(key)
        scene = Scene(stack, proxy, gateway, other.at(gateway.url), other, key)
        # It loads the scripts: each later call is then a single command.
        assert (await post(scene.first, key, 100, to=key)).status == 202
        yield scene
        gateway.thaw()


@pytest.mark.long
async def test_a_stopped_gateway_goes_on_when_a_repetition_was_accepted(scene: Scene, listen: Listen) -> None:
    running = await scene.begin_and_hold_the_append()
    scene.gateway.freeze()
    response = await scene.publish_past_it()

    await scene.proxy.release()
    scene.gateway.thaw()

    late = await running
    # Its time-out may end before it reads the reply.
    assert late.status == 503 or late.headers[REPLAYED] == "true"
    await scene.assert_once_and_in_order(listen, response)


async def test_an_append_is_held_up_when_its_gateway_has_given_up(scene: Scene, listen: Listen) -> None:
    running = await scene.begin_and_hold_the_append()
    first = await running
    assert first.status == 503
    assert int(first.headers["Retry-After"]) >= 1
    repeated = await post(scene.other, scene.key, 101, to=scene.key)
    assert repeated.status == 409, "the append may still come"
    response = await scene.publish_past_it()

    await scene.proxy.release()

    await scene.assert_once_and_in_order(listen, response)


@pytest.mark.long
async def test_a_primary_of_a_cluster_hangs_with_the_append(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    """The mark is on another primary."""
    stack = start(redis_like=Cluster, gateways=2, edges=1)
    cluster = stack.redis
    assert isinstance(cluster, Cluster)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    publisher = await api.api_key()
    others = [cluster.primary_of(f"{{{each}}}") for each in (publisher.id, publisher.account)]
    while cluster.primary_of(f"{{{(to := await api.api_key(account=publisher.account)).id}}}") in others:
        pass
    await api.register(to)
    assert (await post(api, publisher, 100, to=to)).status == 202

    hangs = cluster.primary_of(f"{{{to.id}}}")
    hangs.freeze()
    try:
        assert (await post(api, publisher, 101, to=to)).status == 503
        mark = keyspace.running(publisher.id, keyspace.idempotency_field("order-101"))
        with cluster.primary_of(mark).client() as redis:
            assert redis.exists(mark), "the append may still come"
            await wait_until(lambda: not redis.exists(mark))
    finally:
        hangs.thaw()
    other = api.at(stack.gateways[1].url)
    assert REPLAYED not in (await accepted(other, publisher, 101, to=to)).headers
    await accepted(other, publisher, 102, to=to)

    receiver = await listen(to, stack.edges[0].url)
    await receiver.received_numbers(range(100, 103))
    await other.until(to, queue_size=0)
    assert receiver.numbers == [100, 101, 102]
