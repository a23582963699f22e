"""A request that a proxy and this server could read differently gets a 400 in our form."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.hot_routes import HotRequest
from shared.runtime.http.protocol import HttpProtocol

HOST = "Host: localhost\n"
LENGTH = "Content-Length: 5\n"
CHUNKED = "Transfer-Encoding: chunked\n"
CHUNKS = "5\nhello\n0\n\n"

PLAIN, HOT, SOCKET = "POST /plain", "POST /hot", "GET /socket"
UPGRADE = (
    "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
)
every_kind = pytest.mark.parametrize("kind", [PLAIN, HOT, SOCKET])
with_a_body = pytest.mark.parametrize("kind", [PLAIN, HOT])


class Served:
    """Responds to everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[list[tuple[bytes, bytes]]] = []

    def hot(self, request: HotRequest) -> bool:
        self.requests.append(request.head.headers)
        request.respond(200, b"", request.body)
        return True

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope["headers"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def served() -> Served:
    return Served()


@pytest.fixture
async def port(served: Served) -> AsyncIterator[int]:
    config = uvicorn.Config(served.app, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def connected() -> asyncio.Protocol:
        routes = {(b"POST", b"/hot"): served.hot}
        arrivals = Arrivals(most=10, most_per_address=10, trusted=())
        return HttpProtocol(
            config=config, server_state=state, app_state={}, arrivals=arrivals, hot_routes=routes
        )

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def request(kind: str, headers: str, *, version: str = "HTTP/1.1", body: str | None = None) -> bytes:
    """The bytes of a request; in `headers` and `body` each line ends with a line feed alone."""
    if kind == SOCKET:
        headers += UPGRADE
    elif body is None:
        headers, body = headers + LENGTH, "hello"
    return f"{kind} {version}\n{headers}\n{body or ''}".replace("\n", "\r\n").encode("latin-1")


async def exchange(port: int, data: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers in lower case, and body of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", 0))), 20)
        return int(first.split()[1]), headers, body.decode()
    finally:
        writer.close()


async def assert_refused(port: int, served: Served, data: bytes, *, naming: str = "") -> None:
    status, headers, body = await exchange(port, data)
    assert status == 400, body
    error = json.loads(body)
    assert (error["object"], error["code"], error["type"]) == ("error", 400, "bad_request")
    assert error["request_id"] == headers["x-request-id"]
    assert (headers["content-type"], headers["connection"]) == ("application/json", "close")
    assert naming in error["message"]
    assert served.requests == []


REFUSED_HOSTS = {
    "none": "",
    "two": "Host: a\nHost: b\n",
    "the same twice": "Host: a\nHost: a\n",
    "two, one of them empty": "Host: a\nHost:\n",
    "in two cases": "HOST: a\nhost: b\n",
    "a list": "Host: a, b\n",
    "a list without blanks": "Host: a,b\n",
    "a blank": "Host: a b\n",
    "a tab": "Host: a\tb\n",
    "userinfo": "Host: user@a\n",
    "userinfo with a password": "Host: user:password@a\n",
    "a scheme": "Host: http://a\n",
    "a path": "Host: a/b\n",
    "a query": "Host: a?b\n",
    "a port in words": "Host: a:http\n",
    "two ports": "Host: a:1:2\n",
    "an IPv6 address without brackets": "Host: ::1\n",
    "an open bracket": "Host: [::1\n",
    "text after the brackets": "Host: [::1]a\n",
    "not ASCII": "Host: \xe9\n",
    "an unfinished escape": "Host: a%2\n",
}


@every_kind
@pytest.mark.parametrize("headers", REFUSED_HOSTS.values(), ids=REFUSED_HOSTS)
async def test_a_wrong_host_is_refused(port: int, served: Served, kind: str, headers: str) -> None:
    await assert_refused(port, served, request(kind, headers), naming="Host")


@every_kind
@pytest.mark.parametrize(
    "value",
    [
        *(
            "localhost",
            "localhost:8000",
            "127.0.0.1",
            "[::1]",
            "[::1]:8000",
            "[fe80::1%25eth0]:80",
            "A.example.",
        ),
        *("my_service", "a%2Fb", "a:", " a\t", ""),
    ],
)
async def test_one_valid_host_is_served(port: int, served: Served, kind: str, value: str) -> None:
    """Also an empty one, which RFC 9110 asks of a client whose target has no authority."""
    status, _, _ = await exchange(port, request(kind, f"Host: {value}\n"))
    assert status == (101 if kind == SOCKET else 200)
    assert len(served.requests) == 1


@with_a_body
async def test_http_1_0_needs_no_host(port: int, served: Served, kind: str) -> None:
    assert (await exchange(port, request(kind, "", version="HTTP/1.0")))[::2] == (200, "hello")
    assert (await exchange(port, request(kind, HOST, version="HTTP/1.0")))[::2] == (200, "hello")
    served.requests.clear()
    await assert_refused(port, served, request(kind, HOST + HOST, version="HTTP/1.0"), naming="Host")


@every_kind
async def test_each_request_of_a_connection_needs_its_host(port: int, served: Served, kind: str) -> None:
    """A valid one before it does not count."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for headers, status in ((HOST, b"200"), (HOST, b"200")):
        writer.write(request(HOT, headers))
        assert (await reader.readuntil(b"\r\n\r\nhello")).startswith(b"HTTP/1.1 " + status)
    writer.write(request(kind, ""))
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    assert len(served.requests) == 2
    writer.close()


@pytest.mark.parametrize("refused", [request(PLAIN, ""), b"GET / HTTP/1.1\n\n"], ids=["refused", "malformed"])
async def test_a_refusal_never_takes_the_place_of_an_earlier_response(
    port: int, served: Served, refused: bytes
) -> None:
    """The request before it is answered, then the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(PLAIN, HOST) + request(PLAIN, HOST) + refused)
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()

    assert received.count(b"HTTP/1.1 ") == received.count(b"HTTP/1.1 200") == 2
    assert received.endswith(b"hello")
    assert len(served.requests) == 2


@every_kind
async def test_a_refusal_repeats_the_request_id(port: int, kind: str) -> None:
    _, headers, body = await exchange(port, request(kind, "X-Request-Id: mine-1\n"))
    assert headers["x-request-id"] == json.loads(body)["request_id"] == "mine-1"


# What the parser refuses itself is here too: another parser might not.
REFUSED_FRAMINGS = {
    "two lengths": (LENGTH + "Content-Length: 6\n", "hello!"),
    "the same length twice": (LENGTH + LENGTH, "hello"),
    "a list of lengths": ("Content-Length: 5, 5\n", "hello"),
    "a length with a sign": ("Content-Length: +5\n", "hello"),
    "a negative length": ("Content-Length: -5\n", "hello"),
    "a length in hexadecimal": ("Content-Length: 0x5\n", "hello"),
    "a length of two words": ("Content-Length: 5 5\n", "hello"),
    "an empty length": ("Content-Length: \n", ""),
    "a length beyond 64 bits": ("Content-Length: 18446744073709551621\n", "hello"),
    "a coding after a length": (LENGTH + CHUNKED, CHUNKS),
    "a length after a coding": (CHUNKED + LENGTH, CHUNKS),
    "chunked twice": (CHUNKED + CHUNKED, CHUNKS),
    "chunked twice in a line": ("Transfer-Encoding: chunked, chunked\n", CHUNKS),
    "another coding": ("Transfer-Encoding: gzip\n", ""),
    "another coding before chunked": ("Transfer-Encoding: gzip, chunked\n", CHUNKS),
    "another coding in a line before": ("Transfer-Encoding: gzip\n" + CHUNKED, CHUNKS),
    "another coding after chunked": ("Transfer-Encoding: chunked, identity\n", CHUNKS),
    "identity": ("Transfer-Encoding: identity\n", ""),
    "an empty coding": ("Transfer-Encoding: \n", ""),
    "a coding with a parameter": ("Transfer-Encoding: chunked;x=1\n", CHUNKS),
    "a coding in quotes": ('Transfer-Encoding: "chunked"\n', CHUNKS),
    "a coding behind a vertical tab": ("Transfer-Encoding: \vchunked\n", CHUNKS),
    "a coding that ends with chunked": ("Transfer-Encoding: xchunked\n", CHUNKS),
    "a blank before the colon": ("Content-Length : 5\n", "hello"),
    "a tab before the colon": ("Transfer-Encoding\t: chunked\n", CHUNKS),
    "a name with a control character": ("Content-Length\x01: 5\n", "hello"),
    "a name that is not ASCII": ("Content-Length\xe9: 5\n", "hello"),
    "no name": (": x\n" + LENGTH, "hello"),
    "no colon": ("x\n" + LENGTH, "hello"),
    "a folded line": ("X: a\n  b\n" + LENGTH, "hello"),
    "a NUL in a value": ("X: a\0b\n" + LENGTH, "hello"),
}


@with_a_body
@pytest.mark.parametrize(("headers", "body"), REFUSED_FRAMINGS.values(), ids=REFUSED_FRAMINGS)
async def test_an_ambiguous_body_is_refused(
    port: int, served: Served, kind: str, headers: str, body: str
) -> None:
    await assert_refused(port, served, request(kind, HOST + headers, body=body))


@with_a_body
@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 "])
async def test_other_versions_are_refused(port: int, served: Served, kind: str, version: str) -> None:
    await assert_refused(port, served, request(kind, HOST, version=version))


@with_a_body
async def test_http_1_0_has_no_chunks(port: int, served: Served, kind: str) -> None:
    data = request(kind, HOST + CHUNKED, version="HTTP/1.0", body=CHUNKS)
    await assert_refused(port, served, data, naming="Transfer-Encoding")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["line feeds", "one line feed", "a carriage return", "a blank first", "HTTP/0.9", "a tab"],
)
async def test_other_line_ends_and_blanks_are_refused(port: int, served: Served, data: bytes) -> None:
    await assert_refused(port, served, data)


@with_a_body
@pytest.mark.parametrize("value", ["chunked", "Chunked", " chunked "])
async def test_chunks_are_served(port: int, kind: str, value: str) -> None:
    data = request(kind, f"{HOST}Transfer-Encoding: {value}\n", body=CHUNKS)
    assert (await exchange(port, data))[::2] == (200, "hello")


@with_a_body
async def test_a_trailer_is_no_header(port: int, served: Served, kind: str) -> None:
    trailers = "Authorization: Bearer x\nX-Forwarded-For: 10.0.0.1\nHost: other\n"
    data = request(kind, HOST + CHUNKED, body=f"5\nhello\n0\n{trailers}\n")

    assert (await exchange(port, data))[::2] == (200, "hello")

    [headers] = served.requests
    assert headers == [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
