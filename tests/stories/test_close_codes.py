"""Close codes of Pelion sockets: those of its documents of 2019 (default) and of 2020."""

import dataclasses
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Listen, ListenSilently
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.processes import Service
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


@pytest.fixture(scope="module")
def edges_of_2020(shared_stack: Stack) -> Iterator[list[Service]]:
    with shared_stack.more_edges("edge-2020-a", "edge-2020-b", PELION_CLOSE_CODES=2020) as edges:
        yield edges


def wrong(key: ApiKey) -> ApiKey:
    """The same key with another last character in its secret."""
    other = "0" if key.secret[-1] != "0" else "1"
    return dataclasses.replace(key, secret=key.secret[:-1] + other)


class TestCodesOf2019:
    async def test_a_wrong_key_is_accepted_and_closed_with_1008(
        self, channel: ApiKey, listen: Listen
    ) -> None:
        receiver = await listen(wrong(channel))

        assert await receiver.closed() == 1008

    async def test_a_missing_key_is_accepted_and_closed_with_1008(self, stack: Stack) -> None:
        receiver = await Receiver.open_as(stack.edges[0].url)
        assert await receiver.closed() == 1008

        receiver = await Receiver.open_as(stack.edges[0].url, "wss")
        assert receiver.connection.subprotocol == "wss"
        assert await receiver.closed() == 1008

    async def test_a_key_without_a_channel_is_closed_with_1011(self, key: ApiKey, listen: Listen) -> None:
        receiver = await listen(key)

        assert await receiver.closed() == 1011

    async def test_a_key_without_the_receive_scope_is_closed_with_1008(
        self, api: Api, listen: Listen
    ) -> None:
        publisher = await api.api_key(scopes=("publish",))

        receiver = await listen(publisher)

        assert await receiver.closed() == 1008

    async def test_takeover_and_delete_close_with_1001(
        self, api: Api, channel: ApiKey, stack: Stack, listen: Listen
    ) -> None:
        older = await listen(channel)
        newer = await listen(channel, stack.edges[1].url)
        assert await older.closed() == 1001

        await api.delete_channel(channel)
        assert await newer.closed() == 1001

    async def test_a_clients_close_frame_is_echoed(self, channel: ApiKey, listen: Listen) -> None:
        receiver = await listen(channel)

        await receiver.connection.close(1000, "enough")

        assert receiver.connection.close_code == 1000


class TestCodesOf2020:
    async def test_a_wrong_or_missing_key_gets_a_401(
        self, channel: ApiKey, edges_of_2020: list[Service], listen: Listen
    ) -> None:
        url = edges_of_2020[0].url
        with pytest.raises(InvalidStatus) as wrong_key:
            await listen(wrong(channel), url)
        with pytest.raises(InvalidStatus) as no_key:
            await Receiver.open_as(url, "wss")

        for refused in (wrong_key, no_key):
            response = refused.value.response
            assert response.status_code == 401
            assert response.headers["X-Request-Id"]
            assert b'"invalid_auth"' in (response.body or b"")

    async def test_a_key_without_a_channel_is_closed_with_1011(
        self, key: ApiKey, edges_of_2020: list[Service], listen: Listen
    ) -> None:
        receiver = await listen(key, edges_of_2020[0].url)

        assert await receiver.closed() == 1011

    async def test_takeover_closes_with_1001_and_delete_with_1000(
        self, api: Api, channel: ApiKey, edges_of_2020: list[Service], listen: Listen
    ) -> None:
        older = await listen(channel, edges_of_2020[0].url)
        newer = await listen(channel, edges_of_2020[1].url)
        assert await older.closed() == 1001

        await api.delete_channel(channel)
        assert await newer.closed() == 1000

    async def test_a_revoked_key_is_closed_with_1008(
        self, api: Api, channel: ApiKey, edges_of_2020: list[Service], listen: Listen
    ) -> None:
        receiver = await listen(channel, edges_of_2020[0].url)

        await api.revoke(channel)

        assert await receiver.closed() == 1008

    async def test_a_shutdown_closes_with_1012(self, channel: ApiKey, stack: Stack, listen: Listen) -> None:
        with stack.more_edges("edge-2020-c", PELION_CLOSE_CODES=2020) as [edge]:
            receiver = await listen(channel, edge.url)
            edge.terminate()
            assert await receiver.closed() == 1012


async def test_the_server_waits_for_the_clients_close_frame(
    api: Api, channel: ApiKey, stack: Stack, listen_silently: ListenSilently
) -> None:
    client = await listen_silently(channel, stack.edges[0].url)
    await api.publish(channel, reading(1, to=channel.id))
    await wait_until(lambda: client.numbers == [1])

    await api.delete_channel(channel)
    await wait_until(lambda: client.close_code == 1001)
    for _ in range(20):
        # A response shows that the edge's loop has run.
        assert stack.edges[0].get("/livez") == 200
    assert not client.ended
    await client.answer_close()

    await wait_until(lambda: client.ended)
