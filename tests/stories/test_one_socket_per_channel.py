"""A channel has one socket: the newest takes over, and the edge closes the older one."""

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.stack import Stack


@pytest.mark.parametrize("other_edge", [0, 1], ids=["same edge", "other edge"])
async def test_newest_socket_takes_over(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, other_edge: int
) -> None:
    older = await listen(channel, stack.edges[0].url)
    newer = await listen(channel, stack.edges[other_edge].url)

    assert await older.closed() == 1001
    await api.publish(channel, reading(1, to=channel.id))

    await newer.received_numbers([1])
    assert newer.open_now
    assert older.numbers == []
    assert await api.status(channel) == "connected"


async def test_an_older_client_can_take_over_again(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    first = await listen(channel, stack.edges[0].url)
    second = await listen(channel, stack.edges[1].url)
    await first.closed()
    third = await listen(channel, stack.edges[0].url)

    assert await second.closed() == 1001
    await api.publish(channel, reading(1, to=channel.id))
    await third.received_numbers([1])


async def test_acked_notifications_are_not_sent_to_the_next_socket(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    older = await listen(channel, stack.edges[0].url)
    await api.publish(channel, *[reading(n, to=channel.id) for n in range(1, 11)])
    await older.received_numbers(range(1, 11))
    await api.until(channel, queue_size=0)

    newer = await listen(channel, stack.edges[1].url)
    await api.publish(channel, reading(11, to=channel.id))

    await newer.received_numbers([11])


async def test_registering_again_keeps_socket_and_queue(api: Api, channel: ApiKey, listen: Listen) -> None:
    await api.publish(channel, reading(1, to=channel.id))

    assert (await api.register(channel)).status == 200
    assert await api.queue_size(channel) == 1
    receiver = await listen(channel)
    await receiver.received_numbers([1])
    assert (await api.register(channel)).status == 200
    await api.publish(channel, reading(2, to=channel.id))

    await receiver.received_numbers([1, 2])
    assert receiver.open_now


async def test_sockets_of_different_keys_are_independent(api: Api, channel: ApiKey, listen: Listen) -> None:
    sibling = await api.api_key(account=channel.account)
    await api.register(sibling)
    ours = await listen(channel)
    theirs = await listen(sibling)

    counted = await api.publish(channel, reading(1, to=channel.id), reading(2, to=sibling.id))

    assert counted == [1, 1]
    await ours.received_numbers([1])
    await theirs.received_numbers([2])
    assert ours.open_now


async def test_the_channel_shows_its_delivery_mechanism(api: Api, key: ApiKey) -> None:
    assert (await api.call("GET", "/v2/notification/channel", key=key)).status == 404

    made = await api.register(key)

    assert made.status == 201
    assert made.json["status"] == "disconnected"
    assert made.json["queue_size"] == 0
    response = await api.call("GET", "/v2/notification/channel", key=key)
    assert (response.status, response.json) == (200, {"delivery_mechanism": "WEB_SOCKET"})
