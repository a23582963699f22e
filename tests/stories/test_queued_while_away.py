"""Notifications stay queued without a socket, and the next socket receives them."""

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import Event, reading, readings
from tests.harness.stack import Stack


async def test_notifications_are_queued_until_the_first_socket(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    counted = await api.publish(channel, *readings(range(100), to=channel.id))

    assert counted == [1] * 100
    assert (await api.channel(channel)).json["status"] == "disconnected"
    assert await api.queue_size(channel) == 100
    receiver = await listen(channel)
    await receiver.received_numbers(range(100))
    await api.until(channel, status="connected", queue_size=0)


async def test_a_reconnect_receives_only_new_notifications(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    first = await listen(channel, stack.edges[0].url)
    await api.publish(channel, *readings(range(10), to=channel.id))
    await first.received_numbers(range(10))
    await api.until(channel, status="connected", queue_size=0)
    await first.close()
    await api.until(channel, status="disconnected", queue_size=0)

    await api.publish(channel, *readings(range(10, 20), to=channel.id))
    assert await api.queue_size(channel) == 10
    second = await listen(channel, stack.edges[1].url)

    await second.received_numbers(range(10, 20))


async def test_a_reset_connection_is_disconnected_at_once(api: Api, channel: ApiKey, listen: Listen) -> None:
    receiver = await listen(channel)
    await api.until(channel, status="connected", queue_size=0)

    await receiver.drop()

    await api.until(channel, status="disconnected", queue_size=0)


async def test_nothing_is_queued_without_a_channel(api: Api, key: ApiKey, listen: Listen) -> None:
    assert await api.publish(key, reading(1, to=key.id)) == [0]

    await api.register(key)

    assert await api.queue_size(key) == 0
    await api.publish(key, reading(2, to=key.id))
    receiver = await listen(key)
    await receiver.received_numbers([2])


async def test_device_registrations_reach_every_channel_of_the_account(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    sibling = await api.api_key(account=channel.account)
    outsider = await api.api_key()
    for key in (sibling, outsider):
        await api.register(key)
    events: list[Event] = [
        {"topic": "device.registrations", "data": {"ep": "lamp", "ept": "Light", "q": False}},
        {"topic": "device.reg-updates", "data": {"ep": "lamp", "ept": "Light", "q": True}},
        {"topic": "device.de-registrations", "data": "lamp"},
        {"topic": "device.registrations-expired", "data": "lamp"},
    ]

    assert await api.publish(channel, *events) == [2, 2, 2, 2]

    expected = [(event["topic"].removeprefix("device."), event["data"]) for event in events]
    for key in (channel, sibling):
        receiver = await listen(key)
        assert await receiver.received(4) == expected
    assert await api.queue_size(outsider) == 0


async def test_an_event_with_a_plain_topic_arrives_under_events(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    order = {"number": 17, "lines": [{"item": "Tür", "price": 12.5}], "paid": False, "note": None}
    response = await api.post_events(
        channel,
        {
            "topic": "orders.created",
            "id": "order-17",
            "name": "created",
            "time": "2026-01-02T03:04:05Z",
            "data": order,
            "to": channel.id,
        },
    )
    assert (response.status, response.json) == (202, {"events": [{"id": "order-17", "channels": 1}]})

    receiver = await listen(channel)

    [(section, item)] = await receiver.received(1)
    assert section == "events"
    assert item == {
        "id": "order-17",
        "topic": "orders.created",
        "name": "created",
        "time": "2026-01-02T03:04:05Z",
        "data": order,
    }


async def test_an_event_without_an_id_gets_one(api: Api, channel: ApiKey, listen: Listen) -> None:
    event = {"topic": "orders.created", "data": None, "to": channel.id}

    response = await api.post_events(channel, [event, event])

    given = [receipt["id"] for receipt in response.json["events"]]
    assert len(set(given)) == 2
    receiver = await listen(channel)
    assert [item["id"] for _, item in await receiver.received(2)] == given


async def test_an_async_response_goes_to_its_addressee(api: Api, channel: ApiKey, listen: Listen) -> None:
    async_response = {"id": "1073741825#521f9d17", "status": 504, "error": "TIMEOUT"}
    event = {"topic": "device.async-responses", "data": async_response, "to": channel.id}

    assert await api.publish(channel, event) == [1]

    receiver = await listen(channel)
    assert await receiver.received(1) == [("async-responses", async_response)]
