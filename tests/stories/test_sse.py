"""Streams over Server-Sent Events: every reader of a topic gets every event, and who may read what."""

from typing import Any

import aiohttp
import pytest

from tests.faults.handmade import Line
from tests.harness.all_in_one import all_in_one
from tests.harness.api import Api, ApiKey
from tests.harness.sse import STREAM, TOPIC, Read, StreamClient, ask, bind, keep, publish
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


class TestReading:
    async def test_an_event_arrives_as_a_cloudevent(self, api: Api, stream_key: ApiKey, read: Read) -> None:
        reader = await read()
        assert reader.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert reader.response.headers["Cache-Control"] == "no-store"
        assert reader.response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in reader.response.headers
        assert reader.parser.retry_ms is not None
        assert 2000 <= reader.parser.retry_ms <= 4000
        [began] = reader.recovered
        assert began == {"topic": TOPIC, "recovered": True, "epoch": "", "offset": "0-0", "first": None}

        [offset] = await publish(api, stream_key, {"n": 1}, id="e-1", name="n", time="2026-01-31T12:00:00Z")
        await reader.until_data([{"n": 1}])
        assert reader.events == [
            {
                "specversion": "1.0",
                "id": "e-1",
                "source": f"/accounts/{stream_key.account}",
                "type": TOPIC,
                "time": "2026-01-31T12:00:00Z",
                "subject": "n",
                "notifyoffset": offset,
                "datacontenttype": "application/json",
                "data": {"n": 1},
            }
        ]

    async def test_every_reader_gets_every_event_in_order(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack
    ) -> None:
        readers = [await read(url=edge.url) for edge in stack.edges for _ in range(3)]
        for first in range(0, 50, 5):
            await publish(api, stream_key, *range(first, first + 5))
        for reader in readers:
            await reader.until_data(range(50))

    async def test_the_readers_of_all_edges_are_counted(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack
    ) -> None:
        await publish(api, stream_key, 1)
        readers = [await read(url=edge.url) for edge in stack.edges for _ in range(2)]

        async def are(count: int) -> bool:
            state = await api.call("GET", f"/v1/streams/{TOPIC}", key=stream_key)
            return bool(state.json["readers"] == count)

        await wait_until(lambda: are(4))
        for reader in readers[1:]:
            await reader.close()
        await wait_until(lambda: are(1))

    async def test_the_channel_of_the_key_gets_its_copies_as_before(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        await api.register(stream_key)
        reader = await read()
        await publish(api, stream_key, 1)
        await reader.until_data([1])
        assert await api.queue_size(stream_key) == 1

    async def test_from_earliest_begins_with_what_is_retained(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        await publish(api, stream_key, *range(250))
        reader = await read(begin="earliest")
        await reader.until_data(range(250))
        await publish(api, stream_key, 250)
        await reader.until_data(range(251))

    async def test_events_for_one_channel_are_in_no_readers_stream(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack
    ) -> None:
        await api.register(stream_key)
        with stack.more_edges("sse-quick", SSE_HEARTBEAT_S=0.2) as [edge]:
            reader = await read(url=edge.url)
            await publish(api, stream_key, 1)
            await reader.until_data([1])
            before = reader.last_event_id
            await publish(api, stream_key, 2, to=stream_key.id)
            await wait_until(lambda: reader.last_event_id != before, what="an id without an event")
            assert reader.data == [1]
            id = reader.last_event_id
        again = await read(last_event_id=id)
        assert again.recovered[0]["recovered"] is True
        await publish(api, stream_key, 3)
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

    async def test_http_1_0_gets_no_chunks(self, api: Api, stream_key: ApiKey, stack: Stack) -> None:
        line = await Line.open(stack.edges[0].url)
        head = f"GET {STREAM}?topic={TOPIC} HTTP/1.0\r\nAuthorization: Bearer {stream_key.secret}\r\n\r\n"
        await line.write(head.encode())
        assert b"transfer-encoding" not in (await line.read_until(b"\r\n\r\n")).lower()
        assert (await line.read_until(b"\n\n")).startswith(b"retry: ")
        assert (await line.read_until(b"\n\n")).startswith(b"event: recovered\n")
        await publish(api, stream_key, 1)
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
        stream_key: ApiKey,
        stack: Stack,
        http: aiohttp.ClientSession,
        topics: tuple[str, ...],
        begin: str | None,
        field: str,
    ) -> None:
        response = await ask(http, stack.edges[0].url, stream_key.secret, *topics, begin=begin)
        assert response.status == 400
        error = await response.json()
        assert (error["type"], error["fields"][0]["name"]) == ("validation_error", field)

    async def test_only_topics_that_are_bound_and_retained(
        self, api: Api, stream_key: ApiKey, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        bindings: list[Any] = ["orders.*", {"topic": "stock.#", "where": {"shop": "a"}}]
        await bind(api, stream_key, *bindings, "free")
        await keep(api, stream_key, "#")
        url = stack.edges[0].url
        for topic in ("orders.paid.late", "stock.low", "other"):
            response = await ask(http, url, stream_key.secret, TOPIC, topic)
            assert response.status == 403
            assert topic in (await response.json())["message"]
        await keep(api, stream_key, "orders.#")
        response = await ask(http, url, stream_key.secret, TOPIC, "free")
        assert response.status == 404
        assert "free" in (await response.json())["message"]

    async def test_only_a_key_that_receives(
        self, api: Api, stream_key: ApiKey, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        publisher = await api.api_key(account=stream_key.account, scopes=("publish",))
        for secret, status in (
            (None, 401),
            ("ak_wrong", 401),
            (stream_key.secret[:-1], 401),
            (publisher.secret, 403),
        ):
            assert (await ask(http, stack.edges[0].url, secret, TOPIC)).status == status

    async def test_head_is_a_405(self, api: Api, stream_key: ApiKey, stack: Stack) -> None:
        edge = api.at(stack.edges[0].url)
        response = await edge.call("HEAD", f"{STREAM}?topic={TOPIC}", key=stream_key)
        assert (response.status, response.headers["Allow"]) == (405, "GET")
