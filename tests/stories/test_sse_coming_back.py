"""Readers of streams come back where they were, through any edge, or are told; and how responses end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.metrics import metric
from tests.harness.sse import OTHER, TOPIC, Read, ask, bind, keep, publish
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


@contextlib.asynccontextmanager
async def small_buffers() -> AsyncIterator[aiohttp.ClientSession]:
    """Its kernel takes little of what the client does not read."""

    def small(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        return made

    connector = aiohttp.TCPConnector(socket_factory=small)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1024) as session:
        yield session


class TestComingBack:
    @pytest.mark.parametrize("id_in_query", [False, True])
    async def test_what_was_missed_comes_through_any_edge(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack, id_in_query: bool
    ) -> None:
        first = await read()
        await publish(api, stream_key, *range(5))
        await first.until_data(range(5))
        await first.close()
        await publish(api, stream_key, *range(5, 300))
        back = {"last_event_id": first.last_event_id, "id_in_query": id_in_query}
        second = await read(url=stack.edges[1].url, **back)
        await second.until_data(range(5, 300))
        assert second.recovered[0]["recovered"] is True

    async def test_a_reader_that_had_no_event_misses_none(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        first = await read()
        await first.close()
        await publish(api, stream_key, *range(3))
        second = await read(last_event_id=first.last_event_id)
        await second.until_data(range(3))
        assert second.recovered[0]["recovered"] is True

    async def test_each_event_has_the_id_to_come_back_with(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        reader = await read()
        await publish(api, stream_key, *range(10))
        await reader.until_data(range(10))
        for at, message in enumerate(reader.of("message")):
            again = await read(last_event_id=message.last_event_id)
            await again.until_data(range(at + 1, 10))

    async def test_one_id_stands_for_all_topics(self, api: Api, stream_key: ApiKey, read: Read) -> None:
        first = await read(TOPIC, OTHER)
        await publish(api, stream_key, "a1", "a2")
        await first.until_data(["a1", "a2"])
        await publish(api, stream_key, "b1", topic=OTHER)
        await first.until_data(["a1", "a2", "b1"])
        a1, a2, b1 = (message.last_event_id for message in first.of("message"))
        await publish(api, stream_key, "a3")
        await publish(api, stream_key, "b2", topic=OTHER)
        for id, missed in ((a1, ["a2", "a3", "b1", "b2"]), (a2, ["a3", "b1", "b2"]), (b1, ["a3", "b2"])):
            # In any order of the topics.
            again = await read(OTHER, TOPIC, last_event_id=id)
            await wait_until(lambda: len(again.data) >= len(missed), what=lambda: again.data)  # noqa: B023
            assert sorted(again.data) == missed
            assert [each["recovered"] for each in again.recovered] == [True, True]

    async def test_what_the_rule_no_longer_keeps_is_told(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        await keep(api, stream_key, "orders.#", count=5)
        first = await read()
        await publish(api, stream_key, *range(3))
        await first.until_data(range(3))
        await first.close()
        offsets = await publish(api, stream_key, *range(3, 20))
        second = await read(last_event_id=first.last_event_id)
        [began] = second.recovered
        assert (began["recovered"], began["reason"], began["first"]) == (False, "trimmed", offsets[-5])
        await second.until_data(range(15, 20))

    async def test_a_purge_is_told_in_an_open_response_and_to_those_who_come_back(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        open_one, away = await read(), await read()
        await publish(api, stream_key, 1, 2)
        await open_one.until_data([1, 2])
        await away.until_data([1, 2])
        await away.close()
        purged = await api.call("DELETE", f"/v1/streams/{TOPIC}", key=stream_key)
        assert purged.status == 204, purged.text
        await open_one.until_begun(2)
        await publish(api, stream_key, 3)
        await open_one.until_data([1, 2, 3])
        back = await read(last_event_id=away.last_event_id)
        await back.until_data([3])
        # An id from behind the purge is as good as any.
        again = await read(last_event_id=open_one.last_event_id)
        for told in (open_one.recovered[1], back.recovered[0]):
            assert (told["recovered"], told["reason"]) == (False, "purged")
        assert again.recovered[0]["recovered"] is True
        assert open_one.recovered[1]["epoch"] == again.recovered[0]["epoch"] != open_one.recovered[0]["epoch"]

    @pytest.mark.parametrize("id", ["garbage", "AX4Y9zcxGy3D__8", "x" * 3000, "*"])
    async def test_an_id_that_is_none_is_told_and_gets_what_there_is(
        self, api: Api, stream_key: ApiKey, read: Read, id: str
    ) -> None:
        await publish(api, stream_key, *range(3))
        reader = await read(last_event_id=id)
        await reader.until_data(range(3))
        [began] = reader.recovered
        assert (began["recovered"], began["reason"]) == (False, "lost")

    async def test_an_id_of_other_topics_or_of_another_account_is_lost(
        self, api: Api, stream_key: ApiKey, read: Read
    ) -> None:
        await publish(api, stream_key, 1)
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
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack
    ) -> None:
        count, received, id = 600, list[int](), ""

        async def publish_all() -> None:
            for number in range(0, count, 2):
                await publish(api, stream_key, number, number + 1)

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
        self,
        api: Api,
        stream_key: ApiKey,
        read: Read,
        stack: Stack,
        http: aiohttp.ClientSession,
        topics: tuple[str, ...],
    ) -> None:
        text, sent = "x" * 20_000, 0
        with stack.more_edges("sse-small", STREAM_BUFFER_BYTES=256 * 1024) as [edge]:
            async with small_buffers() as session:
                slow = await read(*topics, url=edge.url, http=session)
                other = await read(url=edge.url)
                slow.pause()
                while not await metric(http, edge.url, "notify_stream_overflows_total"):
                    await publish(api, stream_key, [sent, text])
                    sent += 1
                    # So both are live: one that catches up is never too slow.
                    await other.until_count(sent)
                    assert sent < 900
                assert await metric(http, edge.url, "notify_stream_readers") == 1
                slow.go_on()
                await slow.until_end()
                assert slow.ends == ["overflow"]
                assert await metric(http, edge.url, "notify_streams_closed_total", reason="too-slow") == 1
            assert other.ends == []
            assert [number for number, _ in other.data] == [*range(sent)]
            again = await read(*topics, url=edge.url, last_event_id=slow.last_event_id)
            await wait_until(lambda: len(slow.data) + len(again.data) >= sent)
            assert [number for number, _ in slow.data + again.data] == [*range(sent)]
            assert 0 < len(slow.data) < sent

    async def test_a_revoked_key_ends_its_responses(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        readers = [await read(url=edge.url) for edge in stack.edges]
        await api.revoke(stream_key)
        for reader in readers:
            await reader.until_end()
            [end] = reader.of("end")
            assert end.json["reason"] in ("key-revoked", "key-expired")
            assert end.json["reconnect"] is False
        again = await ask(http, stack.edges[0].url, stream_key.secret, TOPIC)
        assert again.status == 401

    async def test_a_shutdown_ends_responses_in_good_order(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack
    ) -> None:
        with stack.more_edges("sse-stopping") as [edge]:
            readers = [await read(url=edge.url) for _ in range(10)]
            await publish(api, stream_key, 1)
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
        await publish(api, stream_key, 2)
        await again.until_data([2])

    async def test_each_response_counts_as_a_socket_until_it_ends(
        self, api: Api, stream_key: ApiKey, read: Read, stack: Stack, http: aiohttp.ClientSession
    ) -> None:
        account = f"/v1/accounts/{stream_key.account}"
        assert (await api.admin("PATCH", account, json={"quotas": {"sockets": 1}})).status == 200
        url = stack.edges[0].url
        first = await read(url=url)

        async def refused() -> bool:
            response = await ask(http, url, stream_key.secret, TOPIC)
            response.close()
            return response.status == 429

        await wait_until(refused)
        await first.close()

        async def admitted() -> bool:
            return not await refused()

        await wait_until(admitted)
