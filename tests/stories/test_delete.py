"""DELETE ends a channel: its socket closes, its queue is gone, and a new channel begins empty."""

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.stack import Stack


async def test_deleting_the_channel_deletes_its_queue(api: Api, channel: ApiKey, listen: Listen) -> None:
    await api.publish(channel, *readings(range(5), to=channel.id))

    assert (await api.delete_channel(channel)).status == 204

    assert (await api.channel(channel)).status == 404
    assert (await api.call("GET", "/v2/notification/channel", key=channel)).status == 404
    assert await api.publish(channel, reading(5, to=channel.id)) == [0]
    assert (await api.register(channel)).status == 201
    assert await api.queue_size(channel) == 0
    await api.publish(channel, reading(6, to=channel.id))
    receiver = await listen(channel)
    await receiver.received_numbers([6])


async def test_deleting_the_channel_closes_its_socket_on_any_edge(
    api: Api, other_api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    sibling = await api.api_key(account=channel.account)
    await api.register(sibling)
    here = await listen(channel, stack.edges[0].url)
    there = await listen(sibling, stack.edges[1].url)

    assert (await api.delete_channel(channel)).status == 204
    assert (await other_api.delete_channel(sibling)).status == 204

    assert await here.closed() == 1001
    assert await there.closed() == 1001


async def test_a_recreated_channel_does_not_use_the_old_socket(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    for number in range(10):
        before = await listen(channel)
        await api.delete_channel(channel)
        assert (await api.register(channel)).status == 201
        await api.publish(channel, reading(number, to=channel.id))

        assert await before.closed() == 1001
        assert before.numbers == []
        assert await api.queue_size(channel) == 1
        after = await listen(channel)
        await after.received_numbers([number])
        # The ack follows the pong; before it the next socket would receive the notification again.
        await api.until(channel, queue_size=0)


async def test_deleting_twice_is_a_404(api: Api, key: ApiKey) -> None:
    assert (await api.delete_channel(key)).status == 404
    await api.register(key)
    assert (await api.delete_channel(key)).status == 204
    assert (await api.delete_channel(key)).status == 404


async def test_presubscriptions_survive_the_channel(api: Api, channel: ApiKey, listen: Listen) -> None:
    await api.subscribe(channel, {"endpoint-name": "sensor-*"})

    await api.delete_channel(channel)
    assert await api.publish(channel, reading(1)) == [0]
    await api.register(channel)

    assert await api.publish(channel, reading(2)) == [1]
    receiver = await listen(channel)
    await receiver.received_numbers([2])
