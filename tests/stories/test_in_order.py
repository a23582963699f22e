"""Notifications arrive in the order of their 202 responses, through any gateway, on any edge."""

import asyncio
from collections.abc import Callable

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import Event, reading, readings
from tests.harness.sockets import assert_in_order
from tests.harness.stack import Stack


async def test_events_through_both_gateways_keep_their_order(
    api: Api, other_api: Api, channel: ApiKey, listen: Listen
) -> None:
    receiver = await listen(channel)

    for number in range(200):
        gateway = (api, other_api)[number % 2]
        assert await gateway.publish(channel, reading(number, to=channel.id)) == [1]

    await receiver.received_numbers(range(200))


async def test_events_of_a_batch_keep_their_order(
    api: Api, other_api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    receiver = await listen(channel, stack.edges[1].url)

    for start in range(0, 5000, 500):
        gateway = (api, other_api)[start // 500 % 2]
        await gateway.publish(channel, *readings(range(start, start + 500), to=channel.id))

    await receiver.received_numbers(range(5000))


async def test_concurrent_publishers_each_keep_their_order(
    api: Api, other_api: Api, channel: ApiKey, listen: Listen
) -> None:
    receiver = await listen(channel)

    async def publish(first: int) -> None:
        gateway = (api, other_api)[first // 1000 % 2]
        for number in range(first, first + 50):
            await gateway.publish(channel, reading(number, to=channel.id))

    firsts = range(0, 6000, 1000)
    await asyncio.gather(*(publish(first) for first in firsts))

    await receiver.received(50 * len(firsts))
    for first in firsts:
        assert [n for n in receiver.numbers if n // 1000 * 1000 == first] == [*range(first, first + 50)]


async def test_the_backlog_arrives_before_new_events(api: Api, channel: ApiKey, listen: Listen) -> None:
    await api.publish(channel, *readings(range(2000), to=channel.id))

    opening = asyncio.create_task(listen(channel))
    for start in range(2000, 4000, 100):
        await api.publish(channel, *readings(range(start, start + 100), to=channel.id))

    await (await opening).received_numbers(range(4000))


async def test_sections_keep_their_order_across_frames(api: Api, channel: ApiKey, listen: Listen) -> None:
    kinds: list[tuple[str, Callable[[int], Event]]] = [
        ("notifications", lambda n: reading(n, to=channel.id)),
        ("registrations", lambda n: {"topic": "device.registrations", "data": {"ep": f"d{n}"}}),
        ("de-registrations", lambda n: {"topic": "device.de-registrations", "data": f"d{n}"}),
        ("events", lambda n: {"topic": "orders", "data": n, "to": channel.id}),
    ]
    pattern = [0, 0, 1, 0, 2, 2, 1, 3, 0, 3, 3, 0] * 10

    await api.publish(channel, *[kinds[kind][1](n) for n, kind in enumerate(pattern)])

    receiver = await listen(channel)
    received = await receiver.received(len(pattern))
    assert [section for section, _ in received] == [kinds[kind][0] for kind in pattern]
    assert_in_order(receiver.numbers)
