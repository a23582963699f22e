"""Long polls when an edge is killed, frozen or stopped, Redis is away, or a client does not read."""

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
"""Together 0.9 MB: one answer, and more than the kernels between take from a client that does not read."""


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


async def request(polls: Polls, url: str, *, headers: str = "", receive_buffer: int | None = None) -> Line:
    """A poll on a line of its own, which reads only when it is told to."""
    line = await Line.open(url, receive_buffer=receive_buffer)
    head = f"GET {PULL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {polls.key.secret}\r\n{headers}\r\n"
    await line.say(head.encode())
    return line


async def length_of_answer(line: Line) -> int:
    """How long the body of the 200 is that comes next."""
    head = (await line.hear_until(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200 "), head
    return int(head.partition("content-length: ")[2].partition("\r\n")[0])


async def whole_answer(line: Line) -> list[int]:
    """Its numbers, read to the last byte and not beyond."""
    body = await line.hear(await length_of_answer(line))
    return [number_of(item) for item in json.loads(body)["notifications"]]


async def test_a_killed_edge_is_not_waited_for(start: Start, http: aiohttp.ClientSession) -> None:
    """Its heartbeat would count for ten minutes more."""
    stack = start(edges=2, HEARTBEAT_TTL_S=600)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    waiting = await Polls(api, key, stack.edges[0]).opened()
    other = Polls(api, key, stack.edges[1])
    assert (await other.get()).status == 409

    stack.edges[0].kill()

    with pytest.raises(aiohttp.ClientError):
        await waiting
    await api.publish(key, *readings(range(100), to=key.id))
    assert numbers_in(await other.get()) == [*range(100)]
    assert (await other.now()).status == 204


async def test_a_frozen_edge_is_not_waited_for_and_can_ack_nothing(
    start: Start, http: aiohttp.ClientSession
) -> None:
    stack = start(edges=2)
    frozen = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    waiting = await Polls(api, key, frozen).opened()
    other = Polls(api, key, stack.edges[1])

    frozen.freeze()
    assert (await other.now()).status == 204
    newer = await other.opened()
    frozen.thaw()

    assert (await waiting).status == 204
    assert not newer.done()
    await api.publish(key, reading(1, to=key.id))
    assert numbers_in(await newer) == [1]


class TestAClient:
    async def test_that_hangs_up_in_the_middle_of_an_answer_gets_it_again(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        for edge in installation.edges:
            line = await request(polls, edge.url, receive_buffer=4096)
            await line.hear_until(b'"notifications"')
            line.close()

        assert numbers_in(await elsewhere.get()) == [*range(LARGE)]
        assert (await polls.now()).status == 204

    async def test_that_stops_reading_keeps_nobody_out_for_long(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        line = await request(polls, installation.edges[0].url, receive_buffer=4096)
        await line.hear_until(b'"notifications"')

        both = await asyncio.gather(polls.now(), elsewhere.now())

        assert [numbers_in(response) for response in both if response.status == 200] == [[*range(LARGE)]]
        line.close()

    async def test_that_reads_slowly_is_not_told_twice(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        line = await request(polls, installation.edges[0].url, receive_buffer=4096)
        length = await length_of_answer(line)

        newcomer = asyncio.create_task(elsewhere.now())
        await line.hear(length // 2)
        assert not newcomer.done(), "it waits for the one before"
        await line.hear(length - length // 2)
        line.close()

        assert (await newcomer).status == 204

    @pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
    async def test_that_hangs_up_once_it_has_read_is_not_told_again(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls, elsewhere: Polls, headers: str
    ) -> None:
        await polls.now()
        for number in range(20):
            line = await request(polls, installation.edges[0].url, headers=headers)
            await api.publish(key, reading(number, to=key.id))
            assert await whole_answer(line) == [number]
            line.close()
            assert (await elsewhere.now()).status == 204

    async def test_that_asks_ahead_on_one_connection_gets_one_after_the_other(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls
    ) -> None:
        line = await request(polls, installation.edges[0].url)
        for _ in range(4):
            head = f"GET {PULL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.secret}\r\n\r\n"
            await line.say(head.encode())
        await wait_until(polls.held)
        for number in range(5):
            await api.publish(key, reading(number, to=key.id))
            assert await whole_answer(line) == [number]
        line.close()

    async def test_that_asks_ahead_and_then_deletes_the_channel_is_told_that_it_is_gone(
        self, api: Api, key: ApiKey, installation: Stack, polls: Polls
    ) -> None:
        """The Python SDK does so when it stops right after a value: the second poll waits its turn."""
        await polls.now()
        await api.publish(key, *readings(range(LARGE), to=key.id, padding=PADDING))
        line = await request(polls, installation.edges[0].url, receive_buffer=4096)
        length = await length_of_answer(line)
        head = f"GET {PULL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.secret}\r\n\r\n"
        await line.say(head.encode())

        edge = api.at(installation.edges[0].url)
        assert (await edge.call("DELETE", PULL, key=key)).text == "REMOVED"
        await line.hear(length)

        assert (await line.hear_until(b"CHANNEL_DELETED")).startswith(b"HTTP/1.1 410 ")
        assert (await api.call("GET", "/v2/notification/channel", key=key)).status == 404
        line.close()


async def test_a_stop_answers_every_poll(
    start: Start, http: aiohttp.ClientSession, listen_silently: ListenSilently
) -> None:
    """While a client of a socket takes its time to say goodbye, the edge still says that it is going away."""
    stack = start(edges=2)
    leaving = stack.edges[0]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key() for _ in range(20)]
    polls = [asyncio.create_task(Polls(api, key, leaving).get()) for key in keys]
    await wait_until(lambda: _holds(api, keys[0], leaving, 20))
    socket_key = await api.api_key()
    await api.register(socket_key)
    silent = await listen_silently(socket_key, leaving.url)

    leaving.terminate()

    assert [response.status for response in await asyncio.gather(*polls)] == [204] * 20
    await wait_until(lambda: silent.close_code == 1001)
    refused = await Polls(api, keys[0], leaving).get()
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) >= 1
    await wait_until(lambda: leaving.ended, within_s=10)
    assert leaving.exit_code == 0
    assert "Traceback" not in leaving.stderr
    for key in keys:
        await api.publish(key, reading(1, to=key.id))
        assert numbers_in(await Polls(api, key, stack.edges[1]).now()) == [1]


async def _holds(api: Api, key: ApiKey, edge: object, count: int) -> bool:
    return await Polls(api, key, edge).held() == count  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_without_redis_a_poll_stays_for_its_time(
    start: Start, http: aiohttp.ClientSession, how: str
) -> None:
    stack = start(edges=2, LONG_POLL_WAIT_S=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    polls = Polls(api, key, stack.edges[0])
    waiting = await polls.opened()

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

    async def is_told() -> bool:
        published = (await api.post_events(key, reading(1, to=key.id))).status == 202
        return published and (await polls.get()).status == 200

    await wait_until(is_told, within_s=30)
    other = Polls(api, key, stack.edges[1])
    while (response := await other.now()).status == 200:
        assert set(numbers_in(response)) == {1}
    await api.publish(key, reading(2, to=key.id))
    assert numbers_in(await other.get()) == [2]
