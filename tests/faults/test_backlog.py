"""A large backlog: a stock client with its default limits receives all of it."""

import time

from tests.conftest import Listen, Measured
from tests.harness.api import Api, ApiKey
from tests.harness.events import readings


async def test_a_backlog_of_10000(
    api: Api, channel: ApiKey, listen: Listen, record_property: Measured
) -> None:
    await api.publish(channel, *readings(range(10_000), to=channel.id))
    assert await api.queue_size(channel) == 10_000

    began = time.monotonic()
    receiver = await listen(channel)
    await receiver.received_numbers(range(10_000), within_s=60)
    await api.until(channel, queue_size=0)

    took = f"{receiver.arrived_at[-1] - began:.2f} s, {len(receiver.frames)} frames"
    record_property("a backlog of 10,000, until all is received", took)
    assert receiver.open_now


async def test_a_backlog_of_40_megabytes(api: Api, channel: ApiKey, listen: Listen) -> None:
    """Items of 200 KB, each in a frame of its own; a stock client takes up to 1 MiB."""
    for first in range(0, 200, 20):
        await api.publish(channel, *readings(range(first, first + 20), to=channel.id, padding=200_000))

    receiver = await listen(channel)

    await receiver.received_numbers(range(200), within_s=60)
    await api.until(channel, queue_size=0)
