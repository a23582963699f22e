"""A head that a connection sends again is not parsed; whatever differs from it is."""

import asyncio

import pytest

from shared.runtime.http.known_heads import known_head
from shared.runtime.http.protocol import HttpProtocol
from tests.harness.waiting import wait_until
from tests.runtime.hot_routes import BODY, HOT, OTHER, Client, Route


async def test_a_known_head_is_read_once_for_any_length(client: Client, route: Route) -> None:
    for body in (BODY, b"", BODY * 50, b"1"):
        client.writer.write(HOT.replace(b"10", str(len(body)).encode()) + body)
        assert await client.response() == b"hot " + body

    assert len({id(request.head) for request in route.requests}) == 1


@pytest.mark.parametrize(
    ("data", "response"),
    [
        (HOT.replace(b"localhost", b"127.0.0.1") + BODY, b"hot " + BODY),
        (HOT.replace(b"\r\n\r\n", b"\r\nx-more: 1\r\n\r\n") + BODY, b"hot " + BODY),
        (HOT.replace(b"x-last: b\r\n", b"") + BODY, b"hot " + BODY),
        (HOT.replace(b"x-last: b", b"x-last: c") + BODY, b"hot " + BODY),
        (HOT.replace(b": 10", b": 0010") + BODY, b"hot " + BODY),
        (b"\r\n" + HOT + BODY, b"hot " + BODY),
        (OTHER + BODY, b"app " + BODY),
        (HOT + BODY + OTHER + BODY, b"hot " + BODY),
        (HOT.replace(b"10", b"9") + BODY[:9] + HOT + BODY, b"hot " + BODY[:9]),
        (HOT.replace(b": 10", b": +10") + BODY, b"malformed"),
        (HOT.replace(b": 10", b": 1_0") + BODY, b"malformed"),
        (HOT.replace(b": 10", b": 1 0") + BODY, b"malformed"),
        (HOT.replace(b": 10", b": -1") + BODY, b"malformed"),
        (HOT.replace(b": 10", b": ") + BODY, b"malformed"),
        (HOT.replace(b": 10", b": 10\r\ncontent-length: 10") + BODY, b"malformed"),
        (HOT.replace(b": 10", b": 10\r\nhost: other") + BODY, b"Host"),
        (HOT[len("POST ") :] + BODY, b"capitals"),
    ],
)
async def test_what_differs_from_a_known_head_is_parsed(
    client: Client, route: Route, data: bytes, response: bytes
) -> None:
    client.writer.write(HOT + BODY)
    assert await client.response() == b"hot " + BODY

    client.writer.write(data)

    assert response in await client.response()
    first, *others = route.requests
    assert all(request.head is not first.head for request in others)


@pytest.mark.parametrize("cut", [1, len(HOT) - 1, len(HOT), len(HOT) + 1])
async def test_a_known_head_in_pieces_is_parsed(client: Client, route: Route, cut: int) -> None:
    """The pieces may look like a request of their own."""
    client.writer.write(HOT + BODY)
    await client.response()
    whole = HOT + BODY

    client.writer.write(whole[:cut])
    for _ in range(20):
        await asyncio.sleep(0)
    client.writer.write(whole[cut:])

    assert (await client.response()).endswith(BODY)
    client.writer.write(whole)
    assert await client.response() == b"hot " + BODY


async def test_a_body_that_looks_like_a_known_head_stays_a_body(client: Client, route: Route) -> None:
    """A proxy would take the second response for that of another client's request."""
    client.writer.write(HOT + BODY)
    assert await client.response() == b"hot " + BODY
    inner = HOT + BODY
    client.writer.write(OTHER.replace(b"10", str(len(inner)).encode()))
    await route.app_began.acquire()

    client.writer.write(inner)

    assert await client.response() == b"app " + inner
    assert len(route.requests) == 1


@pytest.mark.parametrize("first", [HOT[:9], HOT[:-10]])
async def test_the_end_of_a_head_is_no_head(client: Client, route: Route, first: bytes) -> None:
    """Known would be what a proxy never sent as a head."""
    client.writer.write(first)
    for _ in range(20):
        await asyncio.sleep(0)
    client.writer.write((HOT + BODY)[len(first) :])
    assert await client.response() == b"hot " + BODY

    client.writer.write((HOT + BODY)[len(first) :])

    assert await client.response() != b"hot " + BODY


@pytest.mark.parametrize("before", [b"", b"authorization: a\r\n"])
@pytest.mark.parametrize("behind", [b"", b"authorization: b\r\n"])
async def test_a_known_head_is_equal_in_every_byte(
    client: Client, route: Route, before: bytes, behind: bytes
) -> None:
    head = b"POST /hot HTTP/1.1\r\nhost: h\r\n%bcontent-length: 10\r\n%b\r\n" % (before, behind)
    if before and behind:
        head = head.replace(b"authorization: b", b"x-other: b")
    client.writer.write(head + BODY)
    await client.response()
    request = route.requests[0]

    known = known_head(head + BODY, b"POST /hot HTTP/1.1", request, route)

    assert known is not None
    assert known.body_in(head + BODY) == BODY
    assert known.body_in(head.replace(b"10", b"9") + BODY[:9]) == BODY[:9]
    for at in range(len(head)):
        changed = head[:at] + bytes([head[at] ^ 1]) + head[at + 1 :]
        assert known.body_in(changed + BODY) is None, changed
        assert known.body_in(head[:at] + head[at + 1 :] + BODY) is None
    assert known_head(head + BODY + b"x", b"POST /hot HTTP/1.1", request, route) is None
    assert known_head(b"x" + head + BODY, b"POST /hot HTTP/1.1", request, route) is None
    assert known_head(head[5:] + BODY, b"POST /hot HTTP/1.1", request, route) is None


async def test_a_long_head_is_not_kept(client: Client, route: Route) -> None:
    head = HOT.replace(b"\r\n\r\n", b"\r\nx-long: " + b"a" * 3000 + b"\r\n\r\n")
    for _ in range(2):
        client.writer.write(head + BODY)
        assert await client.response() == b"hot " + BODY

    assert route.requests[0].head is not route.requests[1].head


async def test_a_declined_request_with_a_known_head_reaches_the_application(
    client: Client, route: Route
) -> None:
    client.writer.write(HOT + BODY)
    assert await client.response() == b"hot " + BODY
    for declines, response in ((True, b"app "), (False, b"hot ")) * 2:
        route.declines = declines
        client.writer.write(HOT + BODY)
        assert await client.response() == response + BODY


async def test_a_body_behind_its_head_is_served_by_the_hot_route(client: Client, route: Route) -> None:
    """Many clients write one after the other."""
    client.writer.write(HOT + BODY)
    await client.response()
    for _ in range(3):
        client.writer.write(HOT)
        for _ in range(20):
            await asyncio.sleep(0)
        client.writer.write(BODY)
        assert await client.response() == b"hot " + BODY


async def test_a_body_that_does_not_come_is_awaited_by_the_application(client: Client, route: Route) -> None:
    client.writer.write(HOT + BODY)
    await client.response()
    client.writer.write(HOT)
    await route.app_began.acquire()
    client.writer.write(BODY)

    assert await client.response() == b"app " + BODY


async def test_a_client_that_waits_for_a_100_gets_it_also_later(client: Client) -> None:
    client.writer.write(HOT + BODY)
    await client.response()
    client.writer.write(HOT.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.writer.write(BODY)

    assert await client.response() == b"app " + BODY


async def test_a_client_that_ends_behind_a_head_is_closed(client: Client) -> None:
    client.writer.write(HOT + BODY)
    await client.response()
    client.writer.write(HOT)
    client.writer.write_eof()

    assert await client.reader.read() == b""


async def test_a_stop_lets_a_head_that_waits_for_its_body_be_served(
    client: Client, route: Route, protocols: list[HttpProtocol]
) -> None:
    client.writer.write(HOT + BODY)
    await client.response()
    client.writer.write(HOT)
    for _ in range(20):
        await asyncio.sleep(0)
    protocols[0].shutdown()
    await route.app_began.acquire()
    client.writer.write(BODY)

    assert await client.response() == b"app " + BODY
    assert await client.reader.read() == b""


async def test_a_blank_line_before_a_known_head_does_not_end_the_connection(
    client: Client, route: Route, protocols: list[HttpProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts the timer of a head, which the head must stop."""
    client.writer.write(HOT + BODY)
    await client.response()
    monkeypatch.setattr("shared.runtime.http.protocol._HEAD_S", 0.2)
    route.waits = True
    client.writer.write(b"\r\n")
    for _ in range(20):
        await asyncio.sleep(0)
    client.writer.write(HOT + BODY)
    await route.arrived.acquire()
    await route.arrived.acquire()
    await wait_until(lambda: protocols[0]._head_timer is None)
    route.respond(route.requests[-1])

    assert await client.response() == b"hot " + BODY
