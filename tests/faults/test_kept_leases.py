"""An edge keeps a poll's lease for the next poll of its client: nobody may notice but Redis."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from shared.store import keyspace
from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.polls import Polls, numbers_in
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=2) as stack:
        yield stack


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
async def polls(api: Api, key: ApiKey, installation: Stack) -> AsyncIterator[Polls]:
    """A client with one connection to the first edge."""
    async with one_connection(api, key, installation, edge=0) as client:
        yield client


@asynccontextmanager
async def one_connection(api: Api, key: ApiKey, stack: Stack, *, edge: int) -> AsyncIterator[Polls]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        yield Polls(Api(session, stack.gateways[0].url, stack.admin_token), key, stack.edges[edge])


def owner_of(stack: Stack, key: ApiKey) -> str | None:
    with stack.valkey.client() as redis:
        owner = redis.hget(keyspace.channel(key.id), "owner")
    return owner.decode() if owner is not None else None


async def kept_lease(polls: Polls, stack: Stack, key: ApiKey) -> str:
    """Polls until the edge keeps the lease after a poll; returns its owner."""
    found = list[str]()

    async def is_kept() -> bool:
        assert (await polls.now()).status in (204, 503), "Redis may be away"
        found[:] = [owner] if (owner := owner_of(stack, key)) is not None else []
        return bool(found)

    await wait_until(is_kept, what="a lease that outlives its poll")
    return found[0]


async def test_polls_of_one_connection_have_one_lease(
    api: Api, key: ApiKey, polls: Polls, installation: Stack
) -> None:
    """It goes when the client polls no more."""

    async def is_the_same() -> bool:
        # A machine that stands still for a second lets it go.
        owner = await kept_lease(polls, installation, key)
        await api.publish(key, reading(1, to=key.id))
        assert numbers_in(await polls.get()) == [1]
        return owner_of(installation, key) == owner

    await wait_until(is_the_same, what="two polls with one claim")
    await wait_until(lambda: owner_of(installation, key) is None, what="the release")


async def test_what_comes_between_two_polls_comes_once_and_in_order(
    api: Api, key: ApiKey, polls: Polls, installation: Stack
) -> None:
    await kept_lease(polls, installation, key)
    received = list[int]()
    for first in range(0, 60, 3):
        await api.publish(key, *readings(range(first, first + 3), to=key.id))
        received += numbers_in(await polls.now())

    assert received == [*range(60)]
    assert (await polls.now()).status == 204, "and nothing comes again"


async def test_what_a_client_names_by_after_comes_until_then(
    api: Api, key: ApiKey, polls: Polls, installation: Stack
) -> None:
    await kept_lease(polls, installation, key)
    await api.publish(key, *readings(range(3), to=key.id))

    first = await polls.get(after="")
    again = await polls.get(after="")

    assert numbers_in(first) == numbers_in(again) == [0, 1, 2]
    assert (await polls.now()).status == 200
    assert (await polls.now()).status == 204


async def test_a_poll_through_another_edge_gets_a_kept_lease(
    api: Api, key: ApiKey, polls: Polls, installation: Stack
) -> None:
    """Back and forth: each is the only poll, and none is refused."""
    async with one_connection(api, key, installation, edge=1) as elsewhere:
        for number in range(0, 40, 2):
            await kept_lease(polls, installation, key)
            await api.publish(key, reading(number, to=key.id))
            assert numbers_in(await elsewhere.get()) == [number]
            await api.publish(key, reading(number + 1, to=key.id))
            assert numbers_in(await polls.get()) == [number + 1]


async def test_a_channel_that_was_deleted_between_two_polls_is_made_again(
    api: Api, key: ApiKey, polls: Polls, installation: Stack
) -> None:
    for number in range(20):
        await kept_lease(polls, installation, key)
        deleting = Polls(api, key, installation.edges[number % 2])
        assert (await deleting.delete()).status == 200

        assert (await polls.now()).status == 204, "a new channel, without what the old one had"
        await api.publish(key, reading(number, to=key.id))
        assert numbers_in(await polls.get()) == [number]


async def test_a_revoked_key_gets_no_poll_by_a_kept_lease(
    api: Api, key: ApiKey, polls: Polls, installation: Stack
) -> None:
    await kept_lease(polls, installation, key)
    await api.revoke(key)

    assert (await polls.now()).status == 401


async def test_a_kept_lease_ends_with_its_edge(start: Start, http: aiohttp.ClientSession) -> None:
    """Killed or stopped: the other edge delivers."""
    stack = start(edges=2, HEARTBEAT_TTL_S=600)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    for end in ("kill", "terminate"):
        key = await api.api_key()
        other = Polls(api, key, stack.edges[1])
        async with one_connection(api, key, stack, edge=0) as polls:
            await kept_lease(polls, stack, key)
            await api.publish(key, reading(1, to=key.id))
            getattr(stack.edges[0], end)()

            assert numbers_in(await other.get()) == [1]
        await wait_until(lambda: not stack.edges[0].alive, what="the end of the edge")
        stack.edges[0].start()
        await wait_until(lambda: stack.edges[0].ready, what="the edge")


async def test_a_kept_lease_survives_no_restart_of_redis(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=1, appendfsync="always")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    received = list[int]()
    async with one_connection(api, key, stack, edge=0) as polls:

        async def has_come() -> bool:
            response = await polls.now()
            if response.status != 503:
                received.extend(numbers_in(response))
            return number in received

        for number in range(3):
            await kept_lease(polls, stack, key)
            stack.valkey.kill()
            stack.valkey.start()
            stack.valkey.wait_ready()
            await _published(api, key, number)
            await wait_until(has_come, what="the event")

    assert received == [0, 1, 2]


async def _published(api: Api, key: ApiKey, number: int) -> None:
    async def is_taken() -> bool:
        body = [reading(number, to=key.id)]
        return (await api.call("POST", "/v1/events", key=key, json=body)).status == 202

    await wait_until(is_taken, what="a publish")
