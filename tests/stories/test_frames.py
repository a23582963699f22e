"""A frame has one section, consecutive notifications in order, and a size that stock clients accept."""

import asyncio

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings, registration
from tests.harness.stack import Stack

FRAME_LIMIT_BYTES = 48 * 1024


async def test_a_frame_has_one_section_of_consecutive_notifications(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await api.publish(
        channel,
        *readings(range(3), to=channel.id),
        registration("a"),
        registration("b"),
        reading(3, to=channel.id),
        {"topic": "device.de-registrations", "data": "a"},
        {"topic": "device.registrations-expired", "data": "b"},
        registration("c", topic="device.reg-updates"),
    )

    receiver = await listen(channel)

    await receiver.received(9)
    shape = [(section, len(items)) for frame in receiver.frames for section, items in frame.items()]
    assert [len(frame) for frame in receiver.frames] == [1] * len(receiver.frames)
    assert shape == [
        ("notifications", 3),
        ("registrations", 2),
        ("notifications", 1),
        ("de-registrations", 1),
        ("registrations-expired", 1),
        ("reg-updates", 1),
    ]


async def test_an_item_arrives_as_published(api: Api, channel: ApiKey, listen: Listen) -> None:
    data = reading(1, ep="Gerät ☃ \U0001f600 \" \\ \n \u0000")["data"] | {
        "uid": "4f1c", "max-age": 4294967295, "x": [1.5, None, True, {}, -0.0, 9007199254740993, "\u2028"]
    }  # fmt: skip
    await api.publish(channel, {"topic": "device.notifications", "data": data, "to": channel.id})

    receiver = await listen(channel)

    assert await receiver.received(1) == [("notifications", data)]


async def test_a_backlog_is_sent_in_nearly_full_frames_under_the_limit(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await api.publish(channel, *readings(range(3000), to=channel.id, padding=100))

    receiver = await listen(channel)

    await receiver.received_numbers(range(3000))
    assert max(receiver.sizes) <= FRAME_LIMIT_BYTES
    fewest = sum(receiver.sizes) / FRAME_LIMIT_BYTES
    assert len(receiver.frames) < 3 * fewest, "most frames are nearly full"


async def test_a_large_item_has_a_frame_of_its_own(api: Api, channel: ApiKey, listen: Listen) -> None:
    await api.publish(
        channel,
        *readings(range(2), to=channel.id),
        reading(2, to=channel.id, padding=100_000),
        *readings(range(3, 5), to=channel.id),
    )

    receiver = await listen(channel)

    await receiver.received_numbers(range(5))
    large = [frame for frame, size in zip(receiver.frames, receiver.sizes, strict=True) if size > 100_000]
    assert [len(frame["notifications"]) for frame in large] == [1]
    assert sorted(receiver.sizes)[-2] <= FRAME_LIMIT_BYTES


async def test_large_items_beyond_the_window_all_arrive(api: Api, channel: ApiKey, listen: Listen) -> None:
    """Each is larger than a frame, all are larger than the window."""
    await api.publish(channel, *readings(range(30), to=channel.id, padding=200_000))

    receiver = await listen(channel)

    await receiver.received_numbers(range(30))


async def test_frame_limits_are_settings(api: Api, channel: ApiKey, stack: Stack, listen: Listen) -> None:
    settings = {"FRAME_LIMIT_BYTES": 4096, "BATCH_LIMIT": 10, "IN_FLIGHT_LIMIT": 25}
    with stack.more_edges("edge-small", **settings) as [edge]:
        await api.publish(channel, *readings(range(200), to=channel.id))
        await api.publish(channel, *readings(range(200, 300), to=channel.id, padding=1000))

        receiver = await listen(channel, edge.url)

        await receiver.received_numbers(range(300))
        assert max(len(frame["notifications"]) for frame in receiver.frames) == 10
        assert max(receiver.sizes) <= 4096


async def test_a_single_notification_is_sent_at_once(api: Api, channel: ApiKey, listen: Listen) -> None:
    """The edge does not wait for a full frame."""
    receiver = await listen(channel)
    for number in range(20):
        await api.publish(channel, reading(number, to=channel.id))
        async with asyncio.timeout(10):
            await receiver.received_numbers(range(number + 1))
