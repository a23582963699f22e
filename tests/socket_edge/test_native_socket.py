"""The requests of a native socket, in order and in bounds; its refresh, its drain and its end."""

import asyncio
import gc
import weakref

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.native.parts import Said
from services.socket_edge.native.socket import (
    MOST_UNANSWERED,
    MOST_UNANSWERED_BYTES,
    NativeSocket,
)
from shared.clock import now_ms
from shared.model.errors import (
    StoreUnavailable,
)
from shared.wire.native.frames import Request
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock
from tests.socket_edge.native_client import Client, reader_of, turns
from tests.socket_edge.native_fixtures import Opened, Token, clients, edge, known, stranger, token
from tests.store.stores import Stores

__all__ = ["clients", "edge", "known", "stranger", "token"]

# Requests


async def test_requests_are_answered_in_the_order_of_arrival(known: Opened) -> None:
    may_end, begun = asyncio.Event(), list[int | None]()

    async def waits(_: NativeSocket, request: Request) -> Said:
        begun.append(request.ref)
        await may_end.wait()
        return ("subscribed", {})

    client = await known(subscribe=waits)
    client.send(1, subscribe={"topic": "a"})
    client.send(2, ping={})
    client.send(3, subscribe={"topic": "b"})
    client.send(4, subscribe={"since": 1})
    await turns()
    assert (begun, client.refs) == ([1], [])
    may_end.set()
    await wait_until(lambda: client.refs == [1, 2, 3, 4], what=lambda: client.refs)
    assert begun == [1, 3]


@pytest.mark.parametrize("by", ["number", "bytes"])
async def test_reading_stops_while_too_much_is_unanswered(known: Opened, by: str) -> None:
    asked: list[Request] = []

    def later(_: NativeSocket, request: Request) -> None:
        asked.append(request)

    client = await known(publish=later)
    events = [{"topic": "a", "data": "x" * (MOST_UNANSWERED_BYTES // 4 if by == "bytes" else 1)}]
    for number in range(4 if by == "bytes" else MOST_UNANSWERED + 1):
        assert not held_back(client)
        assert client.send(number, publish={"events": events}) is False, "its rate is the account's"
    assert held_back(client)
    client.socket.answer(asked[1], b'{"ref":1,"published":[]}')
    assert not held_back(client)
    client.socket.refuse(asked[0], StoreUnavailable(why="test"))
    assert client.refs == [1, 0]


async def test_reading_stops_while_too_much_is_unread(known: Opened) -> None:
    client = await known()
    client.buffered = 4097
    assert client.send(1, ping={}) is True
    assert held_back(client)
    client.buffered = 0
    client.socket._on_room()
    assert not held_back(client)


def held_back(client: Client) -> bool:
    """For mypy, which takes an attribute to stay as it is."""
    return client.is_held_back


async def test_an_answer_without_a_ref_is_not_sent(known: Opened) -> None:
    client = await known(ack=lambda *_: ("acked", {}))
    before = len(client.frames)
    client.send(ack={"channel": "a", "entry": "1-0"})
    assert len(client.frames) == before
    client.send(nack={"channel": "a", "entry": "1-0"})
    [error] = client.of("error")
    assert error["code"] == "not_found"


async def test_what_follows_a_malformed_frame_is_not_read(known: Opened) -> None:
    client = await known()
    client.send_text("{" + "é" * 300)
    client.send(1, ping={})
    assert await client.close_code() == 4000
    assert client.refs == []
    assert client.closed is not None
    assert client.closed["reason"] == "the frame is not JSON"


# Refresh


async def test_a_refresh_moves_the_end(
    stores: Stores, edge: Edge, clients: list[Client], token: Token, clock: Clock
) -> None:
    ends, stays = [await Client(edge).open(reader_of(stores.account_id, lasts_s=0.05)) for _ in range(2)]
    clients += [ends, stays]
    given = await token()
    answer = await stays.ask(1, refresh={"token": given})
    assert answer["refreshed"]["expires_at"]
    await wait_until(lambda: now_ms() > ends.socket.expires_at_ms)
    clock.ahead_s += 1
    await edge.liveness.check_due(clock.now_s())
    assert await ends.close_code() == 4001
    assert stays.closed is None


async def test_a_refresh_is_for_the_same_subject(known: Opened, token: Token) -> None:
    client = await known()
    for number, given in enumerate([await token("user-2"), await token(account="f" * 32)]):
        assert await client.code(number, refresh={"token": given}) == "forbidden"
    assert "refreshed" in await client.ask(9, refresh={"token": await token()})


# The end


async def test_a_drain_waits_for_what_is_unanswered(known: Opened) -> None:
    asked: list[Request] = []

    def later(_: NativeSocket, request: Request) -> None:
        asked.append(request)

    client = await known(publish=later)
    client.send(1, publish={"events": []})
    draining = asyncio.create_task(client.socket.drain(within_s=1000))
    await turns()
    assert client.closed is None
    client.socket.answer(asked[0], b'{"ref":1,"published":[]}')
    await draining
    assert await client.close_code() == 1012


async def test_a_drain_ends_in_time(known: Opened) -> None:
    client = await known(publish=lambda *_: None)
    client.send(1, publish={"events": []})
    await client.socket.drain(within_s=0.01)
    assert await client.close_code() == 1012


async def test_a_client_that_has_gone_harms_nothing(known: Opened) -> None:
    client = await known()
    client.gone = True
    client.send(1, ping={})
    client.send(2, subscribe={"topic": "news"})
    await client.leave()
    assert client.refs == []


async def test_it_leaves_nothing_behind(known: Opened, clients: list[Client]) -> None:
    waits = asyncio.Event()

    async def endless(_: NativeSocket, __: Request) -> Said:
        await waits.wait()
        raise AssertionError

    client = await known(subscribe=endless)
    client.send(1, subscribe={"topic": "news"})
    client.send(2, ping={})
    await turns()
    await client.leave()
    await turns()
    gone = weakref.ref(client.socket)
    clients.clear()
    del client
    gc.collect()
    assert gone() is None
