"""A revocation or deletion that fails half way has still closed the socket.

The account's routing table lies in another Redis slot than the key and its channel: one step can fail alone.
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

CLOSE_S = 10
"""Far less than the edge's sweep interval of a minute."""

BreakRouting = Callable[[ApiKey], AbstractContextManager[None]]


@pytest.fixture
def broken_routing(stack: Stack) -> BreakRouting:
    """Makes every change of the routing table of this key's account fail."""

    @contextlib.contextmanager
    def broken_table(key: ApiKey) -> Iterator[None]:
        name = keyspace.routing(key.account)
        with stack.redis.client() as redis:
            kept = redis.dump(name)
            redis.set(name, "no hash")
            try:
                yield
            finally:
                redis.restore(name, 0, kept, replace=True)

    return broken_table


async def test_a_failed_revocation_closes_the_socket(
    api: Api, channel: ApiKey, listen: Listen, broken_routing: BreakRouting
) -> None:
    publisher = await api.api_key(account=channel.account)
    receiver = await listen(channel)

    with broken_routing(channel):
        response = await api.admin("DELETE", f"/v1/api-keys/{channel.id}")

    assert response.status >= 500, "the failure is reported"
    assert await receiver.closed(within_s=CLOSE_S) == 1008
    assert (await api.admin("DELETE", f"/v1/api-keys/{channel.id}")).status == 404
    assert await (await listen(channel)).closed() == 1008, "the key opens no socket again"
    assert await api.publish(publisher, reading(1, to=channel.id)) == [0], "the routing table still has it"

    async def is_refused() -> bool:
        return (await api.channel(channel)).status == 401

    await wait_until(is_refused, within_s=5)


async def test_a_failed_revocation_by_the_command_line_closes_the_socket(
    api: Api, stack: Stack, channel: ApiKey, listen: Listen, broken_routing: BreakRouting
) -> None:
    # Load the scripts first: the failure then comes without a retry.
    await api.revoke(await api.api_key())
    receiver = await listen(channel)

    with broken_routing(channel):
        done = run_command("api-keys", "revoke", channel.id, settings={"REDIS_URL": stack.redis.url})

    assert done.returncode != 0, "the failure is reported"
    assert await receiver.closed(within_s=CLOSE_S) == 1008


async def test_a_revocation_whose_gateway_died_is_completed_by_the_next_one(
    api: Api, stack: Stack, channel: ApiKey, listen: Listen
) -> None:
    """It had deleted the key, and published no wakeup. Its client got no answer, and asks again."""
    receiver = await listen(channel)
    with stack.redis.client() as redis:
        redis.delete(*keyspace.channel_names(channel.id))

    assert (await api.admin("DELETE", f"/v1/api-keys/{channel.id}")).status == 404

    assert await receiver.closed(within_s=CLOSE_S) == 1008


async def test_a_failed_deletion_closes_the_socket(
    api: Api, channel: ApiKey, listen: Listen, broken_routing: BreakRouting
) -> None:
    receiver = await listen(channel)

    with broken_routing(channel):
        response = await api.delete_channel(channel)

    assert response.status >= 500
    assert await receiver.closed(within_s=CLOSE_S) == 1001
    assert (await api.channel(channel)).status == 404
    assert await api.publish(channel, reading(1, to=channel.id)) == [0]

    assert (await api.register(channel)).status == 201, "a new channel works"
    again = await listen(channel)
    assert await api.publish(channel, reading(2, to=channel.id)) == [1]
    await again.received_numbers([2])
