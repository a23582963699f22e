"""Creations of channels that a crash cuts short, and deletions while a publish is under way."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from shared.model.account_channels import id_shown
from shared.store import keyspace
from shared.store.account_channels import CREATION_MS
from shared.store.scripts import load_scripts
from tests.conftest import Start
from tests.harness.api import Api, Response
from tests.harness.channels import AccountChannels
from tests.harness.processes import Service
from tests.harness.proxy import Proxy, gateway_behind_proxy
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.long

EVENTS = 1000
HELD_BACK = "held back"
KITCHEN = {"kind": "websocket", "name": "kitchen", "customer": "c", "bindings": ["orders"]}


def sha(script: str) -> bytes:
    return load_scripts()[script].sha.encode()


# The commands of a creation. The gateway is killed before the last one of each row.
STEPS: dict[str, tuple[bytes, ...]] = {
    "the name": (sha("channel_name_take"),),
    "the due time": (sha("due_bring_forward"),),
    "the record": (sha("channel_make"),),
    "the due time again": (sha("channel_make"), sha("due_bring_forward")),
    "the name again": (sha("channel_make"), sha("channel_name_take")),
    "the routing table": (sha("routing_enter"),),
    "the end": (b"HDEL",),
    "the answer": (b"HDEL", b"HMGET"),
}
BEFORE_THE_RECORD = ("the name", "the due time", "the record")


@dataclass
class Scene:
    """Two gateways, one behind a proxy that can stop a request, and a reaper."""

    stack: Stack
    proxy: Proxy
    doomed: Service
    first: AccountChannels
    other: AccountChannels

    @property
    def account(self) -> str:
        return self.other.key.account

    async def creations(self) -> Response:
        """Creates the channel through the other gateway."""
        return await self.other.call("POST", json=KITCHEN)

    def records(self, redis: Any) -> list[str]:
        """The ids of the account's native channels, as their records have them."""
        names = redis.scan_iter("{*}:key", count=1000)
        account = self.account.encode()
        found = [name for name in names if redis.hmget(name, "account_id", "native") == [account, b"1"]]
        return [keyspace.id_in(name) for name in found]

    def named(self, redis: Any) -> set[str]:
        """The ids that the account's slot has."""
        fields = redis.hkeys(keyspace.routing(self.account))
        return {field.decode().partition(":")[2] for field in fields if field.startswith(b"native:")}


@pytest.fixture
async def scene(start: Start, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    stack = start(edges=0, reapers=1, tcp=True, HEARTBEAT_S=1)
    async with gateway_behind_proxy(stack) as (doomed, proxy):
        api = Api(http, stack.gateways[0].url, stack.admin_token)
        other = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
        first = AccountChannels(api.at(doomed.url), other.key)
        # Load the scripts: each later call is then a single command.
        made = await first.create(name="before", bindings=["x"])
        assert (await first.call("DELETE", f"/{made['id']}")).status == 204
        yield Scene(stack, proxy, doomed, first, other)


@pytest.mark.parametrize("step", STEPS)
async def test_a_creation_is_complete_or_its_name_is_free(scene: Scene, step: str) -> None:
    texts = STEPS[step]
    scene.proxy.hold_from(texts[0])
    creating = asyncio.create_task(scene.first.call("POST", json=KITCHEN))
    await scene.proxy.until_it_holds()
    for text in texts[1:]:
        scene.proxy.hold_next(text)
        await scene.proxy.until_it_holds()

    scene.doomed.kill()
    scene.proxy.hang_up()

    with pytest.raises(aiohttp.ClientError):
        await creating
    with scene.stack.valkey.client() as redis:
        again = await scene.creations()
        if step == "the answer":
            [channel] = scene.records(redis)
            assert again.status == 409
            shown = await scene.other.get("kitchen")
            assert shown.items() >= KITCHEN.items()
            assert id_shown(shown["id"]) == channel
        elif step in BEFORE_THE_RECORD:
            assert again.status == 201, again.text
        else:
            [channel] = scene.records(redis)
            assert again.status == 409
            let_a_minute_pass(redis, channel)
            await wait_until(lambda: not redis.exists(*keyspace.channel_names(channel)), within_s=60)
            again = await scene.creations()
            assert again.status == 201, again.text
        [left] = scene.records(redis)
        assert scene.named(redis) == {left}
        assert redis.zcard(keyspace.names_of_channels(scene.account)) == 1
        assert redis.zcard(keyspace.channel_ids(scene.account)) == 1
    counts = await scene.other.api.publish(
        scene.other.key,
        {"topic": "orders", "data": 1},
        {"topic": "#", "data": 1, "to": "kitchen"},
        {"topic": "orders", "data": 1, "customer": "c"},
    )
    assert counts == [1, 1, 1]


def let_a_minute_pass(redis: Any, channel: str) -> None:
    """For this channel: its creation began earlier, and it is due."""
    name = keyspace.channel(channel)
    redis.hincrby(name, "created_at_ms", -CREATION_MS)
    redis.zadd(keyspace.due(channel), {channel: 0})


@pytest.mark.parametrize(
    ("how", "status"), [({"to": "kitchen"}, 400), ({}, 202)], ids=["by name", "by bindings"]
)
async def test_a_deletion_ends_a_publish_of_many_events(
    scene: Scene, how: dict[str, str], status: int
) -> None:
    """The channel gets a part of them and is deleted, with that part. The answer counts only what it had, or
    says that there is no such channel."""
    made = await scene.other.create(name="kitchen", customer="c", bindings=["orders"])
    events = [{"topic": "orders", "data": n, **how} for n in range(EVENTS)]
    events[EVENTS // 2]["data"] = HELD_BACK
    scene.proxy.hold_from(HELD_BACK.encode())
    publishing = asyncio.create_task(scene.first.api.post_events(scene.other.key, events))
    await scene.proxy.until_it_holds()
    assert 0 < (await scene.other.get("kitchen"))["pending"] <= EVENTS // 2

    assert (await scene.other.call("DELETE", "/kitchen")).status == 204
    scene.proxy.let_go()

    response = await publishing
    assert response.status == status, response.text[:500]
    if status == 202:
        counts = [event["channels"] for event in response.json["events"]]
        assert counts == sorted(counts, reverse=True)
        assert 0 < sum(counts) <= EVENTS // 2
    channel = id_shown(made["id"])
    assert channel is not None
    with scene.stack.valkey.client() as redis:
        assert not redis.exists(*keyspace.channel_names(channel))
        assert scene.named(redis) == set()
        assert redis.zcard(keyspace.names_of_channels(scene.account)) == 0
    assert (await scene.other.call("GET", "/kitchen")).status == 404
    again = await scene.other.create("pull", name="kitchen", bindings=["orders"])
    assert again["pending"] == 0
    assert await scene.other.api.publish(scene.other.key, {"topic": "orders", "data": 1, **how}) == [1]
