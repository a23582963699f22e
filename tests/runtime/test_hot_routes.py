"""Hot routes: which requests they get, and that every other one reaches the application."""

import asyncio
import socket
import struct

import pytest

from shared.runtime.http.hot_routes import HotRequest
from shared.runtime.http.protocol import HttpProtocol
from tests.harness.waiting import wait_until
from tests.runtime.hot_routes import BODY, HOT, OTHER, Client, Route


async def test_a_whole_request_is_served_by_its_hot_route(client: Client, route: Route) -> None:
    for _ in range(3):
        client.writer.write(HOT + BODY)
        assert await client.response() == b"hot " + BODY

    assert [request.head.headers for request in route.requests] == [
        [(b"host", b"localhost"), (b"x-last", b"b")]
    ] * 3
    assert b"content-type: text/plain\r\n" in client.head


@pytest.mark.parametrize(
    "request_",
    [
        OTHER + BODY,
        HOT.replace(b"POST", b"PUT") + BODY,
        HOT.replace(b"/hot", b"/hot?a=1") + BODY,
        HOT.replace(b"/hot", b"/hot/") + BODY,
        HOT.replace(b"/hot", b"//hot") + BODY,
        HOT.replace(b"/hot", b"/h%6ft") + BODY,
    ],
)
async def test_other_requests_reach_the_application(client: Client, route: Route, request_: bytes) -> None:
    client.writer.write(request_)

    assert await client.response() == b"app " + BODY
    assert route.requests == []


async def test_a_declined_request_reaches_the_application_whole(client: Client, route: Route) -> None:
    route.declines = True
    for _ in range(2):
        client.writer.write(HOT + BODY)
        assert await client.response() == b"app " + BODY

    route.declines = False
    client.writer.write(HOT + BODY)
    assert await client.response() == b"hot " + BODY


@pytest.mark.parametrize("cut", [len(HOT), len(HOT) + 1, len(HOT + BODY) - 1])
async def test_a_body_in_pieces_reaches_the_application(client: Client, route: Route, cut: int) -> None:
    whole = HOT + BODY
    client.writer.write(whole[:cut])
    await route.app_began.acquire()
    client.writer.write(whole[cut:])

    assert await client.response() == b"app " + BODY


async def test_a_head_in_pieces_is_served_by_the_hot_route(client: Client, route: Route) -> None:
    for at in range(len(HOT)):
        client.writer.write(HOT[at : at + 1])
        await asyncio.sleep(0)
    client.writer.write(BODY)

    assert (await client.response()).endswith(BODY)


async def test_a_chunked_body_is_joined(client: Client, route: Route) -> None:
    head = HOT.replace(b"content-length: 10", b"transfer-encoding: chunked")
    client.writer.write(head + b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")

    assert await client.response() == b"hot " + BODY


async def test_expect_100_continue_reaches_the_application(client: Client) -> None:
    client.writer.write(HOT.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.writer.write(BODY)

    assert await client.response() == b"app " + BODY


async def test_pipelined_requests_are_answered_in_order(client: Client, route: Route) -> None:
    route.waits = True
    client.writer.write(HOT + b"0000000000" + HOT + b"1111111111" + OTHER + b"2222222222")
    await route.arrived.acquire()
    route.waits = False
    route.respond(route.requests[0])

    answers = [await client.response() for _ in range(3)]
    assert [answer[-1:] for answer in answers] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_the_connection_closes_if_the_client_wants_it(
    client: Client, route: Route, version: bytes
) -> None:
    head = HOT.replace(b"1.1", version).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    client.writer.write(head + BODY)

    assert await client.response() == b"hot " + BODY
    assert b"connection: close" in client.head
    assert await client.reader.read() == b""


async def test_http_1_0_closes_by_default(client: Client) -> None:
    client.writer.write(HOT.replace(b"1.1", b"1.0") + BODY)

    assert await client.response() == b"hot " + BODY
    assert await client.reader.read() == b""


async def test_a_stop_lets_the_response_out_and_closes(
    client: Client, route: Route, protocols: list[HttpProtocol]
) -> None:
    route.waits = True
    client.writer.write(HOT + BODY)
    await route.arrived.acquire()
    protocols[0].shutdown()
    route.respond(route.requests[0])

    assert await client.response() == b"hot " + BODY
    assert await client.reader.read() == b""


def reset(client: Client) -> None:
    """Without it a client that closes may be one that still reads."""
    kernel_socket = client.writer.get_extra_info("socket")
    kernel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def test_a_response_to_a_client_that_has_gone_is_dropped(
    client: Client, route: Route, protocols: list[HttpProtocol]
) -> None:
    route.waits = True
    client.writer.write(HOT + BODY)
    await route.arrived.acquire()
    reset(client)
    await wait_until(lambda: route.requests[0].disconnected)

    route.respond(route.requests[0])

    assert not route.requests[0].response_complete


async def test_a_client_that_does_not_read_is_served_by_the_application(
    client: Client, route: Route, protocols: list[HttpProtocol]
) -> None:
    """The application waits until the client reads; a hot route would buffer without an end."""
    client.writer.write(HOT + BODY)
    await client.response()
    protocols[0].flow.pause_writing()
    client.writer.write(HOT + BODY)
    await route.app_began.acquire()
    protocols[0].flow.resume_writing()

    assert await client.response() == b"app " + BODY


async def test_an_error_in_a_hot_route_is_not_the_clients(
    client: Client, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(_: HotRequest) -> None:
        raise RuntimeError("a bug")

    route.respond = breaks  # type: ignore[method-assign, assignment]
    client.writer.write(HOT + BODY)

    assert await client.response()
    assert client.head.startswith(b"HTTP/1.1 500")
    assert "a bug" in caplog.text
