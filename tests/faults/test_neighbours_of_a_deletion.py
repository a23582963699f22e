"""The deletion of an account with ten thousand channels under load delays no other account."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from shared.model.account_channels import NewChannel
from shared.model.api_keys import new_id
from shared.model.channels import Kind
from shared.redis.client import connect
from shared.store import keyspace
from shared.store.account_channels import AccountChannels
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled
from tests.conftest import Measured
from tests.faults.test_stored_bytes import used_bytes
from tests.harness import leaks
from tests.harness.api import Api, ApiKey
from tests.harness.neighbour import Neighbour, again_and_again, assert_isolated
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

CHANNELS = 10_000
AT_ONCE = 500
EVENTS = 10
PUBLISHERS = 2
ALONE_S, MEANWHILE_S = 2.5, 2.5
# What Redis keeps for its clients and the neighbour. The channels with their queues take far more.
SLACK_BYTES = 2 * 1024 * 1024


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    """The doomed account is published to, and deleted, through the second gateway."""
    with running_stack(edges=1, gateways=2, reapers=1) as stack:
        yield stack


async def fill(stack: Stack, key: ApiKey) -> list[str]:
    """Ten thousand channels of the key's account, written as the API would."""
    made = list[str]()
    async with connect(str(stack.redis.settings["REDIS_URL"])) as client:
        commands = commands_to(client)
        routing, wakeups = Routing(commands, compiled), Wakeups(commands)
        channels = AccountChannels(commands, routing, wakeups, channels=Channels(commands, routing, wakeups))
        for start in range(0, CHANNELS, AT_ONCE):
            new = [
                NewChannel(
                    *(new_id(), key.account, Kind.PULL, f"channel-{number}", f"customer-{number}"),
                    bindings=b'["orders.#"]',
                )
                for number in range(start, start + AT_ONCE)
            ]
            await asyncio.gather(*map(channels.create, new))
            made += [each.id for each in new]
    return made


@contextlib.asynccontextmanager
async def deleting(api: Api, account: str) -> AsyncIterator[None]:
    """Deletes the account during the block; its end waits for the deletion's."""

    async def is_deleted() -> bool:
        response = await api.admin("DELETE", f"/v1/accounts/{account}?cascade=true")
        assert response.status in (202, 204), response.text
        return response.status == 204

    deletion = asyncio.create_task(wait_until(is_deleted, within_s=240))
    yield
    await deletion


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_neighbour_receives_as_before(
    installation: Stack, http: aiohttp.ClientSession, record_property: Measured
) -> None:
    urls = [gateway.url for gateway in installation.gateways]
    api, attacked_api = (Api(http, url, installation.admin_token) for url in urls)
    neighbour = Neighbour(api, installation.edges[0].url)
    alone = await neighbour.latencies(ALONE_S)
    with installation.valkey.client() as redis:
        before = used_bytes(redis)
        key = await attacked_api.api_key(scopes=("publish", "channels"))
        channels = await fill(installation, key)
        for number in range(EVENTS):
            event = {"topic": "orders.new", "data": {"number": number, "text": "x" * 200}}
            assert await attacked_api.publish(key, event) == [CHANNELS]
        full = used_bytes(redis)

        async def publish() -> None:
            await attacked_api.publish(key, {"topic": "orders.new", "data": 1, "customer": "customer-7"})

        async with again_and_again(PUBLISHERS, publish), deleting(attacked_api, key.account):
            meanwhile = await neighbour.latencies(MEANWHILE_S)

        assert not _left_of(redis, {key.account, key.id, *channels})
        await wait_until(lambda: used_bytes(redis) <= before + SLACK_BYTES, within_s=60)
        after = used_bytes(redis)
    ratio = meanwhile.p99_s / alone.p99_s
    measured = f"{meanwhile}; alone {alone}; ratio of p99 {ratio:.1f}; bytes {before} → {full} → {after}"
    record_property("beside a deletion of 10,000 channels", measured)
    assert full > before + 5 * SLACK_BYTES
    assert_isolated(alone, meanwhile)


def _left_of(redis: Any, ids: set[str]) -> list[bytes]:
    """What a deleted account leaves, apart from what ends within a minute."""
    return [name for name in leaks.bytes_left(redis) if keyspace.id_in(name) in ids]
