"""A pause holds through crashes of the edge and of Redis; after the resume everything arrives in order."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.channels import AccountChannels, Sockets
from tests.harness.events import readings
from tests.harness.sockets import Receiver, assert_consecutive
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

PAUSED = 1013


@dataclass
class Scene:
    """A channel with a socket on the first edge, which has got the first ten notifications."""

    stack: Stack
    channels: AccountChannels
    channel: str
    receiver: Receiver
    sockets: list[Receiver]
    published: int = 0

    async def publish(self, count: int) -> None:
        numbers = range(self.published, self.published + count)
        await self.channels.api.publish(self.channels.key, *readings(numbers, to=self.channel))
        self.published = numbers.stop

    async def open(self, edge: int) -> Receiver:
        opened = await Sockets(self.stack.edges[edge].url).open(self.channels.key, self.channel)
        self.sockets.append(opened)
        return opened

    async def pause(self) -> None:
        """Repeats the request until it is answered: Redis may be away."""

        async def is_paused() -> bool:
            response = await self.channels.call("POST", f"/{self.channel}/pause")
            assert response.status in (204, 503), response.text
            return response.status == 204

        await wait_until(is_paused, within_s=60)

    async def restart_edge(self) -> None:
        self.stack.edges[0].start()
        await wait_until(lambda: self.stack.edges[0].ready, within_s=60)

    async def restart_redis(self) -> None:
        self.stack.valkey.start()
        await wait_until(lambda: self.stack.valkey.answers, within_s=60)


async def edge_dies_before(scene: Scene) -> None:
    scene.stack.edges[0].kill()
    await scene.pause()
    await scene.publish(10)
    await scene.restart_edge()


async def edge_dies_meanwhile(scene: Scene) -> None:
    """The edge has notifications to send and to acknowledge."""
    publishing = asyncio.create_task(scene.publish(1000))
    await wait_until(lambda: len(scene.receiver.numbers) > 100)
    pausing = asyncio.create_task(scene.pause())
    scene.stack.edges[0].kill()
    await asyncio.gather(pausing, publishing)
    await scene.restart_edge()


async def edge_dies_afterwards(scene: Scene) -> None:
    """The edge is stopped when its channel is paused: it never learns of it."""
    scene.stack.edges[0].freeze()
    await scene.pause()
    await scene.publish(10)
    scene.stack.edges[0].kill()
    await scene.restart_edge()


async def redis_dies_before(scene: Scene) -> None:
    scene.stack.valkey.kill()
    pausing = asyncio.create_task(scene.pause())
    await scene.restart_redis()
    await pausing
    await scene.publish(10)


async def redis_dies_afterwards(scene: Scene) -> None:
    await scene.pause()
    await scene.publish(10)
    scene.stack.valkey.kill()
    await scene.restart_redis()


async def redis_dies_unheard(scene: Scene) -> None:
    """The edge is stopped meanwhile: it finds another Redis, and a channel that is paused."""
    scene.stack.edges[0].freeze()
    await scene.pause()
    await scene.publish(10)
    scene.stack.valkey.kill()
    await scene.restart_redis()
    scene.stack.edges[0].thaw()


FAULTS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "the edge dies before": edge_dies_before,
    "the edge dies meanwhile": edge_dies_meanwhile,
    "the edge dies afterwards": edge_dies_afterwards,
    "Redis dies before": redis_dies_before,
    "Redis dies afterwards": redis_dies_afterwards,
    "Redis dies while the edge is stopped": redis_dies_unheard,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_delivered_until_the_resume(
    start: Start, http: aiohttp.ClientSession, fault: str
) -> None:
    stack = start(edges=2, appendfsync="always", HEARTBEAT_S=0.3, HEARTBEAT_TTL_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    channels = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
    made = await channels.create(name="kitchen")
    receiver = await Sockets(stack.edges[0].url).open(channels.key, "kitchen")
    scene = Scene(stack, channels, made["id"], receiver, [receiver])
    await scene.publish(10)
    await receiver.received_numbers(range(10))
    await channels.until("kitchen", pending=0)

    await FAULTS[fault](scene)

    assert await receiver.closed() in (1006, PAUSED)
    received = list(receiver.numbers)
    assert_consecutive(received)
    await channels.until("kitchen", state="paused")
    for edge in range(2):

        async def is_refused(edge: int = edge) -> bool:
            try:
                return await (await scene.open(edge)).closed() == PAUSED
            except (OSError, TimeoutError):
                # The edge is not back yet, or does not reach Redis.
                return False

        await wait_until(is_refused, within_s=60)
    await wait_until(lambda: _publishes(scene), within_s=60)
    shown = await channels.get("kitchen")
    acked = scene.published - shown["pending"]
    assert acked <= len(received)
    assert [each.numbers for each in scene.sockets[1:]] == [[]] * (len(scene.sockets) - 1)
    assert (shown["state"], receiver.numbers) == ("paused", received)

    await channels.do("kitchen", "resume")

    resumed = await scene.open(1)
    await resumed.received_numbers(range(acked, scene.published))
    await channels.until("kitchen", pending=0, state="active")
    for each in scene.sockets:
        await each.drop()


async def _publishes(scene: Scene) -> bool:
    """One more, which waits behind the others."""
    numbers = range(scene.published, scene.published + 1)
    response = await scene.channels.api.post_events(scene.channels.key, readings(numbers, to=scene.channel))
    if response.status == 202:
        scene.published += 1
    return response.status == 202
