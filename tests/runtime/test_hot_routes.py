"""Hot routes: which requests they get, and that every other one reaches the application."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.hot_routes import HotRequest
from shared.runtime.http.protocol import HttpProtocol
from tests.harness.waiting import wait_until

BODY = b"0123456789"
HOT = b"POST /hot HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n"
OTHER = HOT.replace(b"/hot", b"/other")


@dataclass
class Route:
    """A hot route, which responds with `hot` and the body, at once or when the test says so.

    And the application, which responds with `app` and the body.
    """

    declines: bool = False
    waits: bool = False
    requests: list[HotRequest] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    app_began: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def __call__(self, request: HotRequest) -> bool:
        if self.declines:
            return False
        self.requests.append(request)
        self.arrived.release()
        if not self.waits:
            self.respond(request)
        return True

    @staticmethod
    def respond(request: HotRequest) -> None:
        request.respond(200, b"content-type: text/plain\r\n", b"hot " + request.body)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.app_began.release()
        body, more = b"app ", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def response(self) -> bytes:
        """The body of the next response."""
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        [length] = [
            int(line.split(b":")[1])
            for line in self.head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        ]
        return await self.reader.readexactly(length)


@pytest.fixture
async def route() -> Route:
    return Route()


@pytest.fixture
async def protocols() -> list[HttpProtocol]:
    return []


@pytest.fixture
async def client(route: Route, protocols: list[HttpProtocol]) -> AsyncIterator[Client]:
    config = uvicorn.Config(route.app, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def connected() -> asyncio.Protocol:
        made = HttpProtocol(
            config=config,
            server_state=state,
            app_state={},
            arrivals=Arrivals(most=10, most_per_address=10, trusted=()),
            hot_routes={(b"POST", b"/hot"): route},
        )
        protocols.append(made)
        return made

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    yield client
    client.writer.close()
    server.close()


async def test_a_whole_request_is_served_by_its_hot_route(client: Client, route: Route) -> None:
    for _ in range(3):
        client.writer.write(HOT + BODY)
        assert await client.response() == b"hot " + BODY

    assert [request.head.headers for request in route.requests] == [[(b"host", b"localhost")]] * 3
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
