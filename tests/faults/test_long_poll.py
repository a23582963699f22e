"""Long polls when an edge is killed, frozen or stopped, Redis is down, or a client does not read."""

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import pytest

from tests.conftest import ListenSilently, Start
from tests.faults.handmade import Line
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.polls import PULL, Polls, numbers_in
from tests.harness.stack import Stack, running_stack
from tests.harness.waiting import wait_until

LARGE = 14
PADDING = 65_536
"""Together 0.9 MB: one response, and more than the kernel buffers for a client that does not read."""

# Longer than the owner of a contested lease has time.
WAITS_S = 1.5


@pytest.fixture(scope="module")
def installation() -> Iterator[Stack]:
    with running_stack(edges=2) as stack:
        yield stack


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
def polls(api: Api, key: ApiKey, installation: Stack) -> Polls:
    return Polls(api, key, installation.edges[0])


@pytest.fixture
def elsewhere(api: Api, key: ApiKey, installation: Stack) -> Polls:
    return Polls(api, key, installation.edges[1])


async def request(
    polls: Polls, url: str, *, query: str = "", headers: str = "", receive_buffer: int | None = None
) -> Line:
    """A poll on a raw connection, which reads only when the test does."""
    line = await Line.open(url, receive_buffer=receive_buffer)
    await line.write(poll_head(polls, query=query, headers=headers))
    return line


def poll_head(polls: Polls, *, query: str = "", headers: str = "") -> bytes:
    authorization = f"Authorization: Bearer {polls.key.secret}"
    return f"GET {PULL}{query} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n{headers}\r\n".encode()


async def response_length(line: Line) -> int:
    """Reads the head of a 200; returns the length of its body."""
    head = (await line.read_until(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200 "), head
    return int(head.partition("content-length: ")[2].partition("\r\n")[0])


async def whole_response(line: Line) -> list[int]:
    """Reads a whole response; returns its numbers."""
    body = await line.read(await response_length(line))
    return [number_of(item) for item in json.loads(body)["notifications"]]


async def test_polls_work_at_once_after_an_edge_is_killed(start: Start, http: aiohttp.ClientSession) -> None:
    """The dead edge's heartbeat is valid for ten minutes."""
    stack = start(edges=2, HEARTBEAT_TTL_S=600)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    waiting = await Polls(api, key, stack.edges[0]).open()
    other = Polls(api, key, stack.edges[1])
    assert (await other.get()).status == 409

    stack.edges[0].kill()

    with pytest.raises(aiohttp.ClientError):
        await waiting
    await api.publish(key, *readings(range(100), to=key.id))
    assert numbers_in(await other.get()) == [*range(100)]
    assert (await other.now()).status == 204


async def test_polls_work_at_once_after_an_edge_is_killed_during_a_response(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=2, HEARTBEAT_TTL_S=600)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    other = Polls(api, key, stack.edges[1])
    await other.now()
    await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
    line = await request(other, stack.edges[0].url, receive_buffer=4096)
    await response_length(line)
    later = asyncio.create_task(other.now())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(later), WAITS_S)

    stack.edges[0].kill()

    assert numbers_in(await later) == [*range(LARGE)]
    line.close()


async def test_a_frozen_edge_loses_its_poll_and_acks_nothing(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=2)
    frozen = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    waiting = await Polls(api, key, frozen).open()
    other = Polls(api, key, stack.edges[1])

    frozen.freeze()
    assert (await other.now()).status == 204
    newer = await other.open()
    frozen.thaw()

    assert (await waiting).status == 204
    assert not newer.done()
    await api.publish(key, reading(1, to=key.id))
    assert numbers_in(await newer) == [1]


@pytest.mark.parametrize("edge", [0, 1])
async def test_an_only_poll_is_not_refused_when_subscriptions_were_cut(
    api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls, edge: int
) -> None:
    """The next poll waits for a response that is being read, and no wakeup arrives meanwhile."""
    await polls.now()
    await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
    line = await request(polls, installation.edges[0].url, receive_buffer=4096)
    length = await response_length(line)
    later = asyncio.create_task((polls, elsewhere)[edge].now())
    await line.read(length // 2)

    with installation.valkey.client() as redis:
        redis.client_kill_filter(_type="pubsub")
        await line.read(length - length // 2)
        line.close()
        assert (await later).status in (200, 204)


async def test_an_only_poll_is_not_refused_while_subscriptions_break(
    api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
) -> None:
    await polls.now()
    with installation.valkey.client() as redis:
        for number in range(20):
            each = (polls, elsewhere)[number % 2]
            await api.publish(key, reading(number, to=key.id))
            redis.client_kill_filter(_type="pubsub")
            assert numbers_in(await each.get()) == [number]


@pytest.mark.parametrize("is_new", [True, False], ids=["notification", "nothing"])
@pytest.mark.parametrize("edge", [0, 1])
async def test_an_only_poll_is_not_refused_when_its_client_reconnects_while_subscriptions_are_cut(
    api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls, edge: int, is_new: bool
) -> None:
    """It ends its connection in the middle of a poll, and polls again on another one."""
    with installation.valkey.client() as redis:
        for number in range(10):
            line = await request(polls, installation.edges[0].url)
            await wait_until(lambda: _holds(api, key, installation.edges[0], 1))
            redis.client_kill_filter(_type="pubsub")
            line.close()
            if is_new:
                await api.publish(key, reading(number, to=key.id))
            response = await (polls, elsewhere)[edge].now()
            assert response.status in (200, 204), response.text
            assert numbers_in(response) == ([number] if is_new else [])


async def test_a_proxy_that_resets_after_a_response_gets_no_duplicates(
    start: Start, http: aiohttp.ClientSession
) -> None:
    """Linux's ack of a lone short segment waits for data to go with it, and a reset takes it away."""
    stack = start(edges=1, TRUSTED_PROXIES="127.0.0.0/8")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    polls = Polls(api, key, stack.edges[0])
    for number in range(20):
        line = await request(polls, stack.edges[0].url, query="?noWait=true")
        assert (await line.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        await line.write(poll_head(polls))
        await wait_until(polls.held)
        await api.publish(key, reading(number, to=key.id))
        assert await whole_response(line) == [number]
        line.reset()
        assert (await polls.now()).status == 204


class TestClients:
    async def test_a_client_that_disconnects_during_a_response_gets_it_again(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        for edge in installation.edges:
            line = await request(polls, edge.url, receive_buffer=4096)
            await line.read_until(b'"notifications"')
            line.close()

        assert numbers_in(await elsewhere.get()) == [*range(LARGE)]
        assert (await polls.now()).status == 204

    @pytest.mark.long
    async def test_a_client_that_stops_reading_blocks_others_for_5_seconds_at_most(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        line = await request(polls, installation.edges[0].url, receive_buffer=4096)
        await line.read_until(b'"notifications"')

        both = await asyncio.gather(polls.now(), elsewhere.now())

        assert [numbers_in(response) for response in both if response.status == 200] == [[*range(LARGE)]]
        line.close()

    async def test_a_client_that_reads_slowly_gets_no_duplicates(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        line = await request(polls, installation.edges[0].url, receive_buffer=4096)
        length = await response_length(line)

        later = asyncio.create_task(elsewhere.now())
        await line.read(length // 2)
        assert not later.done(), "the response before it is still being sent"
        await line.read(length - length // 2)
        line.close()

        assert (await later).status == 204

    @pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
    async def test_a_client_that_disconnects_after_a_response_gets_no_duplicates(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls, headers: str
    ) -> None:
        await polls.now()
        for number in range(20):
            line = await request(polls, installation.edges[0].url, headers=headers)
            await api.publish(key, reading(number, to=key.id))
            assert await whole_response(line) == [number]
            line.close()
            assert (await elsewhere.now()).status == 204

    async def test_pipelined_polls_are_answered_one_after_the_other(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls
    ) -> None:
        line = await request(polls, installation.edges[0].url)
        for _ in range(4):
            await line.write(poll_head(polls))
        await wait_until(polls.held)
        for number in range(5):
            await api.publish(key, reading(number, to=key.id))
            assert await whole_response(line) == [number]
        line.close()

    async def test_a_pipelined_poll_gets_a_410_after_delete(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls
    ) -> None:
        """The Python SDK pipelines a poll if it stops right after a value."""
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        line = await request(polls, installation.edges[0].url, receive_buffer=4096)
        length = await response_length(line)
        await line.write(poll_head(polls))

        edge = api.at(installation.edges[0].url)
        assert (await edge.call("DELETE", PULL, key=key)).text == "REMOVED"
        await line.read(length)

        assert (await line.read_until(b"CHANNEL_DELETED")).startswith(b"HTTP/1.1 410 ")
        assert (await api.call("GET", "/v2/notification/channel", key=key)).status == 404
        line.close()


async def test_shutdown_ends_every_poll_with_a_204(
    start: Start, http: aiohttp.ClientSession, listen_silently: ListenSilently
) -> None:
    """While a socket's client delays its close frame, the edge refuses polls with a 503."""
    stack = start(edges=2)
    stopping = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key() for _ in range(20)]
    polls = [asyncio.create_task(Polls(api, key, stopping).get()) for key in keys]
    await wait_until(lambda: _holds(api, keys[0], stopping, 20))
    socket_key = await api.api_key()
    await api.register(socket_key)
    silent = await listen_silently(socket_key, stopping.url)

    stopping.terminate()

    assert [response.status for response in await asyncio.gather(*polls)] == [204] * 20
    await wait_until(lambda: silent.close_code == 1001)
    refused = await Polls(api, keys[0], stopping).get()
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) >= 1
    await silent.answer_close()
    await wait_until(lambda: stopping.ended, within_s=10)
    assert stopping.exit_code == 0
    assert "Traceback" not in stopping.stderr
    for key in keys:
        await api.publish(key, reading(1, to=key.id))
        assert numbers_in(await Polls(api, key, stack.edges[1]).now()) == [1]


async def _holds(api: Api, key: ApiKey, edge: object, count: int) -> bool:
    return await Polls(api, key, edge).held() == count  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [pytest.param("frozen", marks=pytest.mark.long), "killed"])
async def test_an_open_poll_survives_an_outage_of_redis(
    start: Start, http: aiohttp.ClientSession, how: str
) -> None:
    stack = start(edges=2, LONG_POLL_WAIT_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    polls = Polls(api, key, stack.edges[0])
    waiting = await polls.open()

    if how == "frozen":
        stack.valkey.freeze()
    else:
        stack.valkey.kill()
    refused = await polls.get()

    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await waiting).status == 204
    if how == "frozen":
        stack.valkey.thaw()
    else:
        stack.valkey.start()

    async def is_delivered() -> bool:
        published = (await api.post_events(key, reading(1, to=key.id))).status == 202
        return published and (await polls.get()).status == 200

    await wait_until(is_delivered, within_s=30)
    other = Polls(api, key, stack.edges[1])
    while (response := await other.now()).status == 200:
        assert set(numbers_in(response)) == {1}
    await api.publish(key, reading(2, to=key.id))
    assert numbers_in(await other.get()) == [2]
