"""The unchanged Python SDK polls: values arrive at its callback, and stopping does not hang."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from mbed_cloud import ConnectAPI

from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api
from tests.harness.events import reading
from tests.harness.polls import Polls
from tests.harness.waiting import wait_until


@pytest.fixture(scope="module")
def service() -> Iterator[AllInOne]:
    with all_in_one() as process:
        process.start()
        process.wait_ready()
        yield process


async def test_values_arrive_and_polling_stops(service: AllInOne, http: aiohttp.ClientSession) -> None:
    api = Api(http, service.url, service.admin_token)
    key = await api.api_key()
    polls = Polls(api, key, service)
    sdk = ConnectAPI({"host": service.url, "api_key": key.secret})
    values: list[str] = []

    def collect(device: Any, path: Any, value: Any) -> None:
        values.append(value.decode() if isinstance(value, bytes) else str(value))

    await asyncio.to_thread(sdk.start_notifications)
    await wait_until(polls.held, what="the SDK to poll")
    await asyncio.to_thread(sdk.add_resource_subscription_async, "sensor-1", "/3303/0/5700", collect)
    for number in range(20):
        assert await api.publish(key, reading(number)) == [1]
        await wait_until(lambda: len(values) == number + 1, what=lambda: values)  # noqa: B023
    assert values == [str(number) for number in range(20)]

    await wait_until(polls.held, what="the SDK to poll again")
    await asyncio.wait_for(asyncio.to_thread(sdk.stop_notifications), 20)

    assert (await api.call("GET", "/v2/notification/channel", key=key)).status == 404
