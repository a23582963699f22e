"""The real Python SDK (mbed-cloud-sdk 2.2.0), with nothing set but its host and its key.

It has threads of its own and blocks, so tests call it through `in_thread`.
"""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from mbed_cloud import ConnectAPI

from tests.clients.in_thread import in_thread
from tests.harness.api import Api, ApiKey
from tests.harness.waiting import wait_until

RESOURCE = ("sensor-1", "/3303/0/5700")


@contextlib.asynccontextmanager
async def python_sdk(url: str, key: ApiKey) -> AsyncIterator[Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Beta", category=FutureWarning)
        sdk = ConnectAPI({"host": url, "api_key": key.secret})
    try:
        yield sdk
    finally:
        await stopped(url, key, sdk.stop_notifications)


async def stopped(url: str, key: ApiKey, stop: Callable[[], object]) -> None:
    """Pipeline what stops the SDK, and deletes the channel until its poll has ended.

    A poll that leaves just before the SDK's own DELETE can be served just after it: then it makes the channel
    anew, and waits. So it is when the SDK stops on the heels of a value.
    """
    stopping = asyncio.create_task(in_thread(stop))
    async with aiohttp.ClientSession() as http:
        api = Api(http, url, "")

        async def is_over() -> bool:
            if not stopping.done():
                await api.call("DELETE", "/v2/notification/pull", key=key)
            return stopping.done()

        await wait_until(is_over, within_s=30, what="the end of its poll")
    await stopping


async def until_it_polls(api: Api, key: ApiKey) -> None:
    """`start_notifications` does not wait for that; what is published before has no channel to go to."""

    async def polls() -> bool:
        response = await api.call("GET", f"/v1/channels/{key.id}", key=key)
        return response.status == 200 and response.json["kind"] == "pull" and response.json["connected"]

    await wait_until(polls, what="an open poll")


async def values_of(sdk: Any) -> list[int]:
    """Subscribes a function to RESOURCE; the numbers that it is called with."""
    values: list[int] = []

    def arrived(device: str, path: str, value: bytes) -> None:
        assert (device, path) == RESOURCE
        values.append(int(value))

    device, path = RESOURCE
    await in_thread(sdk.add_resource_subscription_async, device, path, arrived)
    return values


async def until_equal(values: list[Any], wanted: list[Any]) -> None:
    await wait_until(lambda: len(values) >= len(wanted), what=lambda: f"{wanted}: {values}")
    assert values == wanted


def taken_from(queue: Any) -> Callable[[], bytes]:
    """The next value in a queue that the SDK fills, in at most 20 s."""
    return lambda: queue.get(timeout=20)
