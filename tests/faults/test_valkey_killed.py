"""Valkey is killed and restarts from its append-only file."""

import aiohttp
import pytest

from tests.conftest import Listen, Start
from tests.harness.api import Api
from tests.harness.events import readings
from tests.harness.publisher import Publisher
from tests.harness.sockets import assert_in_order, assert_nothing_lost
from tests.harness.waiting import wait_until

KILLS = 3


async def test_nothing_accepted_is_lost_and_sockets_stay_open(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    """With `appendfsync always`."""
    stack = start(edges=2, appendfsync="always")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    publishing_key = await api.api_key()
    receivers = []
    keys = []
    for number in range(4):
        key = await api.api_key(account=publishing_key.account)
        await api.subscribe(key, {"endpoint-name": "*"})
        await api.register(key)
        keys.append(key)
        receivers.append(await listen(key, stack.edges[number % 2].url))
    publisher = Publisher(api, publishing_key, batch=5)

    async with publisher.publishing():
        for _ in range(KILLS):
            await publisher.wait_for_accepted(200)
            unavailable = publisher.unavailable
            stack.valkey.kill()
            await wait_until(lambda before=unavailable: publisher.unavailable > before)  # type: ignore[misc]
            stack.valkey.start()
            await wait_until(lambda: stack.valkey.answers, within_s=60)
        await publisher.wait_for_accepted(200)

    for key, receiver in zip(keys, receivers, strict=True):
        last = publisher.accepted - 1
        await wait_until(lambda receiver=receiver, last=last: last in receiver.numbers)  # type: ignore[misc]
        assert_nothing_lost(range(publisher.accepted), receiver.numbers)
        assert_in_order(receiver.numbers)
        await api.until(key, queue_size=0, status="connected")
        assert receiver.open_now


@pytest.mark.parametrize("remembers_socket", [True, False], ids=["with the lease", "without the lease"])
async def test_sockets_resync_after_valkey_lost_its_last_writes(
    start: Start, http: aiohttp.ClientSession, listen: Listen, remembers_socket: bool
) -> None:
    """Valkey restarts from an older file: a worse crash than under `appendfsync everysec`.

    What it lost is gone, as the README says of that mode; whatever is published afterwards arrives.
    """
    stack = start(edges=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    await api.publish(key, *readings(range(10), to=key.id))
    if not remembers_socket:
        stack.valkey.keep_copy()
    receiver = await listen(key, stack.edges[0].url)
    await receiver.received_numbers(range(10))
    if remembers_socket:
        stack.valkey.keep_copy()
    await api.publish(key, *readings(range(10, 20), to=key.id))
    await receiver.received_numbers(range(20))
    await api.until(key, queue_size=0)

    stack.valkey.kill()
    stack.valkey.restore_copy()
    stack.valkey.start()
    await wait_until(lambda: stack.valkey.answers, within_s=60)
    publisher = Publisher(api, key, to=key)
    publisher.accepted = 20
    await publisher.publish(10)

    await wait_until(lambda: 29 in receiver.numbers)
    assert_nothing_lost(range(30), receiver.numbers)
    assert_in_order(receiver.numbers)
    await api.until(key, queue_size=0, status="connected")
    assert receiver.open_now
