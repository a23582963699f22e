"""Revoking an API key takes effect everywhere within a second."""

import asyncio
import time
from functools import partial

from shared.store import keyspace
from tests.conftest import Listen
from tests.harness import leaks
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


async def test_sockets_close_within_a_second_on_every_edge(
    api: Api, other_api: Api, stack: Stack, listen: Listen
) -> None:
    keys = [await api.api_key() for _ in range(4)]
    receivers = []
    for number, key in enumerate(keys):
        await api.register(key)
        receivers.append(await listen(key, stack.edges[number % 2].url))
    bystander_key = await api.api_key(account=keys[0].account)
    await api.register(bystander_key)
    bystander = await listen(bystander_key)

    began = time.monotonic()
    await asyncio.gather(*((api, other_api)[n // 2].revoke(key) for n, key in enumerate(keys)))

    assert [await receiver.closed() for receiver in receivers] == [1008] * 4
    assert max(receiver.closed_at or 0.0 for receiver in receivers) - began < 1
    assert bystander.open_now


async def test_the_secret_is_refused_everywhere(
    api: Api, other_api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    requests = (
        ("POST", "/v1/events"),
        ("GET", "/v2/subscriptions"),
        ("PUT", "/v2/notification/websocket"),
        ("GET", "/v2/notification/websocket"),
        ("GET", "/v2/notification/channel"),
    )
    # Both gateways may cache the key for a second.
    for gateway in (api, other_api):
        assert await gateway.publish(channel, reading(1, to=channel.id)) == [1]

    await api.revoke(channel)

    for gateway in (api, other_api):
        await wait_until(partial(_is_refused, gateway, channel), within_s=5)
        for method, path in requests:
            response = await gateway.call(method, path, key=channel, json=[reading(1)])
            assert (response.status, response.json["type"]) == (401, "invalid_auth")
    for edge in stack.edges:
        receiver = await listen(channel, edge.url)
        assert await receiver.closed() == 1008


async def test_channel_and_queue_are_deleted(api: Api, other_api: Api, channel: ApiKey) -> None:
    publisher = await api.api_key(account=channel.account)
    await api.subscribe(channel, {"endpoint-name": "sensor-*"})
    assert await other_api.publish(publisher, *readings(range(5))) == [1] * 5

    await api.revoke(channel)

    for gateway in (api, other_api):
        assert await gateway.publish(publisher, reading(6)) == [0]
        response = await gateway.post_events(publisher, reading(6, to=channel.id))
        assert response.status == 400, "a revoked key is no key of the account"
        assert response.json["fields"][0]["name"].endswith("to")


async def test_revoking_a_key_in_use_leaves_nothing_in_redis(
    api: Api, other_api: Api, channel: ApiKey, stack: Stack
) -> None:
    """The key is published to and makes requests itself, through gateways that may cache it for a second."""
    publisher = await api.api_key(account=channel.account)
    over = False

    async def publish(gateway: Api) -> None:
        while not over:
            await gateway.post_events(publisher, [reading(n, to=channel.id) for n in range(10)])

    async def register(gateway: Api) -> None:
        while not over:
            await gateway.put_subscriptions(channel, [{"endpoint-name": "*"}])
            await gateway.call("PUT", "/v2/notification/websocket", key=channel)

    tasks = [asyncio.create_task(act(via)) for act in (publish, register) for via in (api, other_api)]
    await wait_until(partial(_has_backlog, api, channel))
    await api.revoke(channel)
    for gateway in (api, other_api):
        await wait_until(partial(_is_refused, gateway, channel), within_s=5)
    over = True
    await asyncio.gather(*tasks)

    with stack.redis.client() as redis:
        # The change log tells other gateways of the revocation, and expires within the hour. The audit log
        # says who revoked it.
        log = keyspace.routing_changes(channel.account)
        kept = {log.encode(), keyspace.audit(channel.account).encode()}
        assert set(leaks.places_of(redis, channel.id)) <= kept
        assert redis.ttl(log) > 0


async def test_revoking_needs_an_administrator_and_works_once(api: Api, key: ApiKey) -> None:
    path = f"/v1/api-keys/{key.id}"
    assert (await api.call("DELETE", path, key=key)).status == 403, "it lacks the scope admin"
    assert (await api.call("DELETE", path)).status == 401
    assert await api.publish(key, reading(1)) == [0]

    assert (await api.admin("DELETE", path)).status == 204
    assert (await api.admin("DELETE", path)).status == 404
    assert (await api.admin("DELETE", f"/v1/api-keys/{'0' * 32}")).status == 404


async def _is_refused(gateway: Api, key: ApiKey) -> bool:
    return (await gateway.call("GET", "/v2/subscriptions", key=key)).status == 401


async def _has_backlog(api: Api, key: ApiKey) -> bool:
    return await api.queue_size(key) > 20
