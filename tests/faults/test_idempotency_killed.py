"""An idempotent request that fails half way can be repeated; its events keep their uids."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from shared.store.scripts import load_scripts
from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import Event
from tests.harness.processes import Service
from tests.harness.proxy import Proxy, gateway_behind_proxy
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

STOP = "stop here"


@dataclass
class Scene:
    """Two gateways, one behind a proxy that can stop a request between its two channels."""

    stack: Stack
    proxy: Proxy
    doomed: Service
    first: Api
    other: Api
    here: ApiKey
    there: ApiKey

    @property
    def events(self) -> list[Event]:
        return [
            {"topic": "orders", "data": "goes through", "to": self.here.id},
            {"topic": "orders", "data": STOP, "to": self.there.id},
        ]

    async def post(self, through: Api) -> Response:
        headers = {"Idempotency-Key": "again"}
        return await through.call("POST", "/v1/events", key=self.here, json=self.events, headers=headers)

    async def start_and_stop_half_way(self) -> asyncio.Task[Response]:
        """Starts the request; it stops when only the first channel has its event."""
        self.proxy.hold_from(STOP.encode())
        running = asyncio.create_task(self.post(self.first))
        await self.proxy.until_it_holds()
        await self.other.until(self.here, queue_size=1)
        assert await self.other.queue_size(self.there) == 0
        return running

    async def repeated_until_accepted(self) -> Response:
        """Repeats the request through the other gateway until it is accepted."""
        responses: list[Response] = []

        async def is_accepted() -> bool:
            responses.append(await self.post(self.other))
            assert responses[-1].status in (202, 409), responses[-1].text
            return responses[-1].status == 202

        await wait_until(is_accepted, within_s=30)
        return responses[-1]


@pytest.fixture
async def scene(start: Start, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    stack = start(edges=1, tcp=True)
    async with gateway_behind_proxy(stack) as (doomed, proxy):
        other = Api(http, stack.gateways[0].url, stack.admin_token)
        here = await other.api_key()
        there = await other.api_key(account=here.account)
        for key in (here, there):
            await other.register(key)
        # Load the scripts: each later call is then a single command.
        scene = Scene(stack, proxy, doomed, other.at(doomed.url), other, here, there)
        assert (await other.post_events(here, {"topic": "orders", "data": 0, "to": there.id})).status == 202
        await other.delete_channel(there)
        await other.register(there)
        yield scene


async def assert_each_once_by_uid(scene: Scene, response: Response, listen: Listen, *, times: int) -> None:
    """Both channels have their event with the uid of the response, the first channel `times` times."""
    uids = [event["id"] for event in response.json["events"]]
    for key, uid, count in ((scene.here, uids[0], times), (scene.there, uids[1], 1)):
        receiver = await listen(key, scene.stack.edges[0].url)
        assert [item["id"] for _, item in await receiver.received(count)] == [uid] * count
        await scene.other.until(key, queue_size=0)


async def test_a_killed_gateway_blocks_its_key_for_10_seconds(scene: Scene, listen: Listen) -> None:
    running = await scene.start_and_stop_half_way()

    scene.doomed.kill()
    scene.proxy.hang_up()

    with pytest.raises(aiohttp.ClientError):
        await running
    assert (await scene.post(scene.other)).status == 409, "the request may still be running"
    with scene.stack.valkey.client() as redis:
        [mark] = redis.scan_iter("*:running:*")
        assert 0 < redis.pttl(mark) <= 10_000
        redis.pexpire(mark, 1)
    response = await scene.repeated_until_accepted()
    assert "Idempotent-Replayed" not in response.headers
    assert (await scene.repeated_until_accepted()).text == response.text
    await assert_each_once_by_uid(scene, response, listen, times=2)


async def test_after_a_503_half_way_a_repetition_keeps_the_uids(scene: Scene, listen: Listen) -> None:
    running = await scene.start_and_stop_half_way()

    scene.proxy.hang_up()

    assert (await running).status == 503
    response = await scene.post(scene.other)
    assert response.status == 202
    assert "Idempotent-Replayed" not in response.headers
    await assert_each_once_by_uid(scene, response, listen, times=2)


async def test_nothing_is_queued_if_the_request_cannot_be_recorded(scene: Scene, listen: Listen) -> None:
    scene.proxy.hold_from(load_scripts()["idempotency_begin"].sha.encode())
    running = asyncio.create_task(scene.post(scene.first))
    await scene.proxy.until_it_holds()

    scene.proxy.hang_up()

    refused = await running
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert {await scene.other.queue_size(key) for key in (scene.here, scene.there)} == {0}
    response = await scene.repeated_until_accepted()
    assert "Idempotent-Replayed" not in response.headers
    await assert_each_once_by_uid(scene, response, listen, times=1)


async def test_a_response_that_cannot_be_recorded_is_recorded_later(scene: Scene, listen: Listen) -> None:
    scene.proxy.hold_from(load_scripts()["idempotency_end"].sha.encode())

    first = await scene.post(scene.first)

    assert scene.proxy.holds
    assert first.status == 202
    assert (await scene.post(scene.other)).status == 409
    scene.proxy.hang_up()
    again = await scene.repeated_until_accepted()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.text == first.text
    await assert_each_once_by_uid(scene, first, listen, times=1)
