"""Pull: a lease of a fetch survives its gateway, and a Redis that has lost it loses no event."""

from typing import Any

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.channels import AccountChannels, Fetch
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_errors import assert_error


async def channels_of(stack: Stack, http: aiohttp.ClientSession) -> list[AccountChannels]:
    """Those of one account, by each gateway."""
    apis = [Api(http, gateway.url, stack.admin_token) for gateway in stack.gateways]
    key = await apis[0].api_key(scopes=("publish", "channels"))
    return [AccountChannels(api, key) for api in apis]


async def publish(by: AccountChannels, *numbers: int) -> None:
    await by.api.publish(by.key, *({"topic": "a", "data": {"number": number}} for number in numbers))


async def pull_channel(by: AccountChannels) -> str:
    # Longer than the test: what comes again does not by the time.
    return str((await by.create("pull", bindings=["a"], ack_timeout_s=3600))["id"])


async def restart(stack: Stack, by: AccountChannels, channel: str, *, from_copy: bool = False) -> None:
    stack.valkey.kill()
    if from_copy:
        stack.valkey.restore_copy()
    stack.valkey.start()
    await wait_until(lambda: stack.valkey.answers, within_s=60)

    async def is_back() -> bool:
        return (await by.call("GET", f"/{channel}")).status == 200

    await wait_until(is_back, within_s=60)


async def test_a_lease_survives_its_gateway_and_a_crash_of_redis(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(gateways=2, edges=0, appendfsync="always")
    first, second = await channels_of(stack, http)
    channel = await pull_channel(first)
    await publish(first, *range(4))
    fetched = await first.fetch(channel, max=2)

    stack.gateways[0].kill()
    await restart(stack, second, channel)

    assert_error(await second.post(channel, "fetch"), 409, "busy")
    body: dict[str, Any] = {"lease": fetched.lease, "until": fetched.entries[1]}
    assert (await second.post(channel, "ack", **body)).status == 204
    assert (await second.fetch(channel)).numbers == [2, 3]


@pytest.mark.parametrize("remembers_fetch", [False, True], ids=["without the fetch", "without its ack"])
async def test_a_redis_that_lost_its_last_writes(
    start: Start, http: aiohttp.ClientSession, remembers_fetch: bool
) -> None:
    """It restarts from an older file, and gives new events entries that it has lost."""
    stack = start(edges=0)
    [by] = await channels_of(stack, http)
    channel = await pull_channel(by)
    await publish(by, *range(4))
    if not remembers_fetch:
        stack.valkey.keep_copy()
    first = await by.fetch(channel, max=2)
    if remembers_fetch:
        stack.valkey.keep_copy()
    assert (await ack(by, channel, first, 1)) == 204
    await publish(by, 4, 5)
    second = await by.fetch(channel, max=3)
    assert second.numbers == [2, 3, 4]

    await restart(stack, by, channel, from_copy=True)
    await publish(by, 6)

    assert await ack(by, channel, second, 2) == 409
    if remembers_fetch:
        assert_error(await by.post(channel, "fetch"), 409, "busy")
        assert await ack(by, channel, first, 1) == 204
        assert (await by.fetch(channel)).numbers == [2, 3, 6]
    else:
        assert await ack(by, channel, first, 1) == 409
        assert (await by.fetch(channel)).numbers == [0, 1, 2, 3, 6]


async def ack(by: AccountChannels, channel: str, fetched: Fetch, until: int) -> int:
    return (await by.post(channel, "ack", lease=fetched.lease, until=fetched.entries[until])).status
