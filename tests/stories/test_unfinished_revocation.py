"""A revocation or a deletion that breaks off half way has done what matters: the socket is closed.

The account's routes are another place in Redis than the key and its channel, so one step can fail alone.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from shared.store import keyspace
from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.processes import run_command
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

AT_ONCE_S = 10
"""Generous; but far less than the minute after which an edge looks by itself."""

BreakRouting = Callable[[ApiKey], AbstractContextManager[None]]


@pytest.fixture
def broken_routes(stack: Stack) -> BreakRouting:
    """Lets every step fail that changes the routes of this key's account."""

    @contextlib.contextmanager
    def broken(key: ApiKey) -> Iterator[None]:
        name = keyspace.routing(key.account)
        with stack.redis.client() as redis:
            kept = redis.dump(name)
            redis.set(name, "no hash")
            try:
                yield
            finally:
                redis.restore(name, 0, kept, replace=True)

    return broken


async def test_a_revoked_keys_socket_is_closed(
    api: Api, channel: ApiKey, listen: Listen, broken_routes: BreakRouting
) -> None:
    publisher = await api.api_key(account=channel.account)
    receiver = await listen(channel)

    with broken_routes(channel):
        response = await api.admin("DELETE", f"/v1/api-keys/{channel.id}")

    assert response.status >= 500, "it says that not all was done"
    assert await receiver.closed(within_s=AT_ONCE_S) == 1008
    assert (await api.admin("DELETE", f"/v1/api-keys/{channel.id}")).status == 404
    assert await (await listen(channel)).closed() == 1008, "and nobody comes in with it again"
    assert await api.publish(publisher, reading(1, to=channel.id)) == [0], "the routes name it still"

    async def is_refused() -> bool:
        return (await api.channel(channel)).status == 401

    await wait_until(is_refused, within_s=5)


async def test_a_key_revoked_from_the_command_line(
    api: Api, stack: Stack, channel: ApiKey, listen: Listen, broken_routes: BreakRouting
) -> None:
    # Redis knows the scripts from now on, so that the failure comes as soon as it can.
    await api.revoke(await api.api_key())
    receiver = await listen(channel)

    with broken_routes(channel):
        done = run_command("api-keys", "revoke", channel.id, settings={"REDIS_URL": stack.redis.url})

    assert done.returncode != 0, "it says that not all was done"
    assert await receiver.closed(within_s=AT_ONCE_S) == 1008


async def test_a_deleted_channels_socket_is_closed(
    api: Api, channel: ApiKey, listen: Listen, broken_routes: BreakRouting
) -> None:
    receiver = await listen(channel)

    with broken_routes(channel):
        response = await api.delete_channel(channel)

    assert response.status >= 500
    assert await receiver.closed(within_s=AT_ONCE_S) == 1001
    assert (await api.channel(channel)).status == 404
    assert await api.publish(channel, reading(1, to=channel.id)) == [0]

    assert (await api.register(channel)).status == 201, "the next channel is as good as any"
    again = await listen(channel)
    assert await api.publish(channel, reading(2, to=channel.id)) == [1]
    await again.received_numbers([2])
