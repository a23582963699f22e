"""Streams over Server-Sent Events: every reader gets every event, comes back where it was, or is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.faults.handmade import Line
from tests.harness.all_in_one import all_in_one
from tests.harness.api import Api, ApiKey
from tests.harness.sse import STREAM, StreamClient, ask, bind, keep
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

TOPIC, OTHER = "orders.paid", "orders.sent"
Read = Callable[..., Awaitable[StreamClient]]


@pytest.fixture
async def key(api: Api) -> ApiKey:
    """A key that publishes to streams of its account, and is bound to them."""
    made = await api.api_key(scopes=("publish", "receive", "channels"))
    await bind(api, made, "orders.#")
    await keep(api, made, "orders.#")
    return made


@pytest.fixture
async def read(stack: Stack, http: aiohttp.ClientSession, key: ApiKey) -> AsyncIterator[Read]:
    """Opens a response, by default of the first edge for TOPIC."""
    opened: list[StreamClient] = []

    async def read(*topics: str, url: str = "", by: ApiKey = key, **options: Any) -> StreamClient:
        url = url or stack.edges[0].url
        opened.append(await StreamClient.open(http, url, by, *(topics or (TOPIC,)), **options))
        await opened[-1].until_begun(len(topics or (TOPIC,)))
        return opened[-1]

    yield read
    for each in opened:
        await each.close()


async def publish(api: Api, key: ApiKey, *data: Any, topic: str = TOPIC, **more: Any) -> list[str]:
    """Publishes events; their offsets."""
    events = [{"topic": topic, "data": each, **more} for each in data]
    response = await api.call("POST", "/v1/events", key=key, json=events)
    assert response.status == 202, response.text
    return [event["stream"]["offset"] for event in response.json["events"]]


class TestReading:
    async def test_an_event_arrives_as_a_cloudevent(self, api: Api, key: ApiKey, read: Read) -> None:
        reader = await read()
        assert reader.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert reader.response.headers["Cache-Control"] == "no-store"
        assert reader.response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in reader.response.headers
        assert reader.parser.retry_ms is not None
        assert 2000 <= reader.parser.retry_ms <= 4000
        [began] = reader.recovered
        assert began == {"topic": TOPIC, "recovered": True, "epoch": "", "offset": "0-0", "first": None}

        [offset] = await publish(api, key, {"n": 1}, id="e-1", name="n", time="2026-01-31T12:00:00Z")
        await reader.until_data([{"n": 1}])
        assert reader.events == [
            {
                "specversion": "1.0",
                "id": "e-1",
                "source": f"/accounts/{key.account}",
                "type": TOPIC,
                "time": "2026-01-31T12:00:00Z",
                "subject": "n",
                "notifyoffset": offset,
                "datacontenttype": "application/json",
                "data": {"n": 1},
            }
        ]

    async def test_every_reader_gets_every_event_in_order(
        self, api: Api, key: ApiKey, read: Read, stack: Stack
    ) -> None:
        readers = [await read(url=edge.url) for edge in stack.edges for _ in range(3)]
        for first in range(0, 50, 5):
            await publish(api, key, *range(first, first + 5))
        for reader in readers:
            await reader.until_data(range(50))

    async def test_the_channel_of_the_key_gets_its_copies_as_before(
        self, api: Api, key: ApiKey, read: Read
    ) -> None:
        await api.register(key)
        reader = await read()
        await publish(api, key, 1)
        await reader.until_data([1])
        assert await api.queue_size(key) == 1

    async def test_from_earliest_begins_with_what_is_retained(
        self, api: Api, key: ApiKey, read: Read
    ) -> None:
        await publish(api, key, *range(250))
        reader = await read(begin="earliest")
        await reader.until_data(range(250))
        await publish(api, key, 250)
        await reader.until_data(range(251))

    async def test_events_for_one_channel_are_in_no_readers_stream(
        self, api: Api, key: ApiKey, read: Read, stack: Stack
    ) -> None:
        await api.register(key)
        with stack.more_edges("sse-quick", SSE_HEARTBEAT_S=0.2) as [edge]:
            reader = await read(url=edge.url)
            await publish(api, key, 1)
            await reader.until_data([1])
            before = reader.last_event_id
            await publish(api, key, 2, to=key.id)
            await wait_until(lambda: reader.last_event_id != before, what="an id without an event")
            assert reader.data == [1]
            id = reader.last_event_id
        again = await read(last_event_id=id)
        assert again.recovered[0]["recovered"] is True
        await publish(api, key, 3)
        await again.until_data([3])

    async def test_a_comment_comes_when_nothing_happens(self, read: Read, stack: Stack) -> None:
        with stack.more_edges("sse-quick", SSE_HEARTBEAT_S=0.2) as [edge]:
            reader = await read(url=edge.url)
            await wait_until(lambda: reader.parser.comments >= 3)
            assert not reader.has_ended

    async def test_pages_of_other_origins_may_read(self, read: Read) -> None:
        reader = await read(headers={"Origin": "https://app.example", "Accept-Encoding": "gzip, br"})
        assert reader.response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Content-Encoding" not in reader.response.headers

    async def test_http_1_0_gets_no_chunks(self, api: Api, key: ApiKey, stack: Stack) -> None:
        line = await Line.open(stack.edges[0].url)
        head = f"GET {STREAM}?topic={TOPIC} HTTP/1.0\r\nAuthorization: Bearer {key.secret}\r\n\r\n"
        await line.write(head.encode())
        assert b"transfer-encoding" not in (await line.read_until(b"\r\n\r\n")).lower()
        assert (await line.read_until(b"\n\n")).startswith(b"retry: ")
        assert (await line.read_until(b"\n\n")).startswith(b"event: recovered\n")
        await publish(api, key, 1)
        assert (await line.read_until(b"\n\n")).startswith(b"data: ")
        line.close()

    async def test_all_in_one_serves_it(self, http: aiohttp.ClientSession) -> None:
        with all_in_one() as process:
            process.start()
            process.wait_ready()
            api = Api(http, process.url, process.admin_token)
            key = await api.api_key(scopes=("publish", "receive", "channels"))
            await bind(api, key, "orders.#")
            await keep(api, key, "orders.#")
            reader = await StreamClient.open(http, process.url, key, TOPIC)
            await reader.until_begun()
            await publish(api, key, 1)
            await reader.until_data([1])
            await reader.close()


class TestComingBack:
    @pytest.mark.parametrize("id_in_query", [False, True])
    async def test_what_was_missed_comes_through_any_edge(
        self, api: Api, key: ApiKey, read: Read, stack: Stack, id_in_query: bool
    ) -> None:
        first = await read()
        await publish(api, key, *range(5))
        await first.until_data(range(5))
        await first.close()
        await publish(api, key, *range(5, 300))
        back = {"last_event_id": first.last_event_id, "id_in_query": id_in_query}
        second = await read(url=stack.edges[1].url, **back)
        await second.until_data(range(5, 300))
        assert second.recovered[0]["recovered"] is True

    async def test_a_reader_that_had_no_event_misses_none(self, api: Api, key: ApiKey, read: Read) -> None:
        first = await read()
        await first.close()
        await publish(api, key, *range(3))
        second = await read(last_event_id=first.last_event_id)
        await second.until_data(range(3))
        assert second.recovered[0]["recovered"] is True

    async def test_each_event_has_the_id_to_come_back_with(self, api: Api, key: ApiKey, read: Read) -> None:
        reader = await read()
        await publish(api, key, *range(10))
        await reader.until_data(range(10))
        for at, message in enumerate(reader.of("message")):
            again = await read(last_event_id=message.last_event_id)
            await again.until_data(range(at + 1, 10))

    async def test_one_id_stands_for_all_topics(self, api: Api, key: ApiKey, read: Read) -> None:
        first = await read(TOPIC, OTHER)
        await publish(api, key, "a1", "a2")
        await first.until_data(["a1", "a2"])
        await publish(api, key, "b1", topic=OTHER)
        await first.until_data(["a1", "a2", "b1"])
        a1, a2, b1 = (message.last_event_id for message in first.of("message"))
        await publish(api, key, "a3")
        await publish(api, key, "b2", topic=OTHER)
        for id, missed in ((a1, ["a2", "a3", "b1", "b2"]), (a2, ["a3", "b1", "b2"]), (b1, ["a3", "b2"])):
            # In any order of the topics.
            again = await read(OTHER, TOPIC, last_event_id=id)
            await wait_until(lambda: len(again.data) >= len(missed), what=lambda: again.data)  # noqa: B023
            assert sorted(again.data) == missed
            assert [each["recovered"] for each in again.recovered] == [True, True]

    async def test_what_the_rule_no_longer_keeps_is_told(self, api: Api, key: ApiKey, read: Read) -> None:
        await keep(api, key, "orders.#", count=5)
        first = await read()
        await publish(api, key, *range(3))
        await first.until_data(range(3))
        await first.close()
        offsets = await publish(api, key, *range(3, 20))
        second = await read(last_event_id=first.last_event_id)
        [began] = second.recovered
        assert (began["recovered"], began["reason"], began["first"]) == (False, "trimmed", offsets[-5])
        await second.until_data(range(15, 20))

    @pytest.mark.parametrize(
        "id", ["garbage", "AX4Y9zcxGy3D__8", "x" * 3000, "", "*", "\u00e9".encode().decode("latin-1")]
    )
    async def test_an_id_that_is_none_is_told_and_gets_what_there_is(
        self, api: Api, key: ApiKey, read: Read, id: str
    ) -> None:
        await publish(api, key, *range(3))
        reader = await read(last_event_id=id, begin="earliest")
        await reader.until_data(range(3))
        [began] = reader.recovered
        if id:
            assert (began["recovered"], began["reason"]) == (False, "lost")
        else:
            assert began["recovered"] is True

    async def test_an_id_of_other_topics_or_of_another_account_is_lost(
        self, api: Api, key: ApiKey, read: Read
    ) -> None:
        await publish(api, key, 1)
        mine = await read(begin="earliest")
        await mine.until_data([1])
        more = await read(TOPIC, OTHER, last_event_id=mine.last_event_id)
        assert [each["reason"] for each in more.recovered] == ["lost", "lost"]
        await more.until_data([1])

        another = await api.api_key(scopes=("publish", "receive", "channels"))
        await bind(api, another, "#")
        await keep(api, another, "orders.#")
        await publish(api, another, 2)
        theirs = await read(by=another, last_event_id=mine.last_event_id)
        assert theirs.recovered[0]["reason"] == "lost"
        await theirs.until_data([2])

    async def test_nothing_is_lost_or_doubled_when_edges_are_killed(
        self, api: Api, key: ApiKey, read: Read, stack: Stack
    ) -> None:
        count, received, id = 600, list[int](), ""

        async def publish_all() -> None:
            for number in range(0, count, 2):
                await publish(api, key, number, number + 1)

        publishing: asyncio.Task[None] | None = None
        for number in range(4):
            with stack.more_edges(f"sse-killed-{number}") as [edge]:
                reader = await read(url=edge.url, last_event_id=id)
                assert reader.recovered[0]["recovered"] is True
                publishing = publishing or asyncio.create_task(publish_all())
                wanted = min(count, len(received) + 100)
                await wait_until(lambda: len(received) + len(reader.data) >= wanted)  # noqa: B023
                edge.kill()
                await reader.until_end()
                received += reader.data
                id = reader.last_event_id
        reader = await read(last_event_id=id)
        await wait_until(lambda: len(received) + len(reader.data) >= count)
        assert publishing is not None
        await publishing
        assert received + reader.data == [*range(count)]


class TestTheEnd:
    @pytest.mark.parametrize("topics", [(TOPIC,), (TOPIC, OTHER)], ids=["one", "two"])
    async def test_a_slow_reader_is_ended_and_comes_back_while_others_feel_nothing(
        self, api: Api, key: ApiKey, read: Read, stack: Stack, topics: tuple[str, ...]
    ) -> None:
        text = "x" * 100_000
        with stack.more_edges("sse-small", STREAM_BUFFER_BYTES=256 * 1024) as [edge]:
            slow, other = await read(*topics, url=edge.url), await read(url=edge.url)
            slow.pause()
            sent = 0
            while await overflows(api, edge.url) == 0:
                await publish(api, key, *([sent + more, text] for more in range(2)))
                sent += 2
                assert sent < 400, "the kernels' buffers are full by now"
            slow.go_on()
            await slow.until_end()
            assert slow.ends == ["overflow"]
            await wait_until(lambda: len(other.data) == sent)
            assert other.ends == []
            assert [number for number, _ in other.data] == [*range(sent)]
            again = await read(*topics, url=edge.url, last_event_id=slow.last_event_id)
            await wait_until(lambda: len(slow.data) + len(again.data) >= sent)
            assert [number for number, _ in slow.data + again.data] == [*range(sent)]
            assert 0 < len(slow.data) < sent

    async def test_a_revoked_key_ends_its_responses(
        self, api: Api, key: ApiKey, read: Read, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        readers = [await read(url=edge.url) for edge in stack.edges]
        await api.revoke(key)
        for reader in readers:
            await reader.until_end()
            [end] = reader.of("end")
            assert end.json["reason"] in ("key-revoked", "key-expired")
            assert end.json["reconnect"] is False
        again = await ask(http, stack.edges[0].url, key.secret, TOPIC)
        assert again.status == 401

    async def test_a_shutdown_ends_responses_in_good_order(
        self, api: Api, key: ApiKey, read: Read, stack: Stack
    ) -> None:
        with stack.more_edges("sse-stopping") as [edge]:
            readers = [await read(url=edge.url) for _ in range(10)]
            await publish(api, key, 1)
            for reader in readers:
                await reader.until_data([1])
            edge.terminate()
            for reader in readers:
                await reader.until_end()
                [end] = reader.of("end")
                assert (end.json["reason"], end.json["reconnect"]) == ("stopping", True)
            await wait_until(lambda: edge.ended)
            assert edge.exit_code == 0
            assert "Traceback" not in edge.stderr
        again = await read(last_event_id=readers[0].last_event_id)
        await publish(api, key, 2)
        await again.until_data([2])

    async def test_each_response_counts_as_a_socket_until_it_ends(
        self, api: Api, key: ApiKey, read: Read, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        quotas = f"/v1/accounts/{key.account}/quotas"
        assert (await api.admin("PUT", quotas, json={"sockets": 1})).status < 300
        url = stack.edges[0].url
        first = await read(url=url)

        async def refused() -> bool:
            response = await ask(http, url, key.secret, TOPIC)
            response.close()
            return response.status == 429

        await wait_until(refused)
        await first.close()

        async def admitted() -> bool:
            return not await refused()

        await wait_until(admitted)


async def overflows(api: Api, url: str) -> int:
    """How many readers the edge has ended because they were slow."""
    page = (await api.at(url).call("GET", "/metrics")).text
    lines = (line for line in page.splitlines() if line.startswith("notify_stream_overflows_total"))
    return sum(round(float(line.rpartition(" ")[2])) for line in lines)


class TestRefusals:
    @pytest.mark.parametrize(
        ("topics", "begin", "field"),
        [
            ((), None, "topic"),
            (tuple(f"orders.{number}" for number in range(17)), None, "topic"),
            ((TOPIC, TOPIC), None, "topic"),
            (("orders.*",), None, "topic"),
            (("device.registrations",), None, "topic"),
            ((TOPIC,), "1-0", "from"),
        ],
    )
    async def test_what_cannot_be_read_is_a_400(
        self,
        key: ApiKey,
        stack: Stack,
        http: aiohttp.ClientSession,
        topics: tuple[str, ...],
        begin: str | None,
        field: str,
    ) -> None:
        response = await ask(http, stack.edges[0].url, key.secret, *topics, begin=begin)
        assert response.status == 400
        error = await response.json()
        assert (error["type"], error["fields"][0]["name"]) == ("validation_error", field)

    async def test_only_topics_that_are_bound_and_retained(
        self, api: Api, key: ApiKey, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        bindings: list[Any] = ["orders.*", {"topic": "stock.#", "where": {"shop": "a"}}]
        await bind(api, key, *bindings, "free")
        await keep(api, key, "#")
        url = stack.edges[0].url
        for topic in ("orders.paid.late", "stock.low", "other"):
            response = await ask(http, url, key.secret, TOPIC, topic)
            assert response.status == 403
            assert topic in (await response.json())["message"]
        await keep(api, key, "orders.#")
        response = await ask(http, url, key.secret, TOPIC, "free")
        assert response.status == 404
        assert "free" in (await response.json())["message"]

    async def test_only_a_key_that_receives(
        self, api: Api, key: ApiKey, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        publisher = await api.api_key(account=key.account, scopes=("publish",))
        for secret, status in ((None, 401), ("ak_wrong", 401), (key.secret[:-1], 401), (publisher.secret, 403)):
            assert (await ask(http, stack.edges[0].url, secret, TOPIC)).status == status

    async def test_head_is_a_405(self, api: Api, key: ApiKey, stack: Stack) -> None:
        edge = api.at(stack.edges[0].url)
        response = await edge.call("HEAD", f"{STREAM}?topic={TOPIC}", key=key)
        assert (response.status, response.headers["Allow"]) == (405, "GET")
