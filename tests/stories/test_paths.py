"""Paths are exact: a client that spells one differently gets an error, and no other dialect's socket."""

import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from tests.conftest import Listen
from tests.faults.handmade import Line
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.sockets import CONNECT_PATH
from tests.harness.stack import Stack

NOT_OURS = [
    f"/{CONNECT_PATH}",
    f"/.{CONNECT_PATH}",
    f"/x/..{CONNECT_PATH}",
    f"{CONNECT_PATH}/",
    f"{CONNECT_PATH}/.",
    CONNECT_PATH.upper(),
    CONNECT_PATH.replace("/", "//"),
    CONNECT_PATH.replace("/v2/", "/v2/./"),
    CONNECT_PATH.replace("/v2", "/V2"),
    CONNECT_PATH.replace("/v2/", "/%2Fv2%2F"),
    CONNECT_PATH.replace("/v2/", "/v2%2F"),
    CONNECT_PATH.replace("/v2", "/%76%32"),
    CONNECT_PATH.replace("/v2", "/%2576%2532"),
    CONNECT_PATH.replace("/v2/", "/%5Cv2%5C"),
    CONNECT_PATH.replace("/v2/", "/\\v2\\"),
    "/v2",
    "/v2/",
    "//v1/socket",
    "//api/v1/websocket",
    "/api/v1/websocket/",
    "/API/v1/websocket",
    "/api//v1/websocket",
]
KAZOOS = ["/", "/socket", "/blackhole/v2", "/v20/events", "/apis", "/socket/v2/../x", "/%2F"]


async def handshake(url: str, target: str, secret: str) -> bytes:
    """The response to a handshake for exactly this target: its head."""
    line = await Line.open(url)
    try:
        request = ClientProtocol(parse_uri("ws" + url.removeprefix("http"))).connect()
        request.headers["Authorization"] = f"Bearer {secret}"
        head = request.serialize().replace(b"GET / HTTP/1.1", f"GET {target} HTTP/1.1".encode(), 1)
        await line.write(head)
        return await line.read_until(b"\r\n\r\n")
    finally:
        line.close()


@pytest.mark.parametrize("target", NOT_OURS)
async def test_another_spelling_of_a_path_is_a_404(stack: Stack, channel: ApiKey, target: str) -> None:
    assert (await handshake(stack.edges[0].url, target, channel.secret)).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("target", KAZOOS)
async def test_every_other_path_is_blackholes(stack: Stack, channel: ApiKey, target: str) -> None:
    assert (await handshake(stack.edges[0].url, target, channel.secret)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("origin", ["http://another.example", "ws://another.example:8080", "HTTP://x"])
async def test_a_url_in_absolute_form_is_its_path(
    api: Api, stack: Stack, channel: ApiKey, listen: Listen, origin: str
) -> None:
    """As RFC 9112 asks for, 3.2.2: a proxy sends it. The socket owns the channel."""
    target = f"{origin}{CONNECT_PATH}"
    older = await listen(channel)

    assert (await handshake(stack.edges[0].url, target, channel.secret)).startswith(b"HTTP/1.1 101 ")
    assert await older.closed() == 1001


SLASHES = ["/v1/bindings/", "//v1/bindings", "/v1//bindings", "/v2/notification/websocket/", "/V1/bindings"]


@pytest.mark.parametrize("path", [*SLASHES, "/livez/", "//metrics", "/v2/notification/pull/"])
async def test_a_slash_too_many_is_a_404_and_no_redirect(stack: Stack, channel: ApiKey, path: str) -> None:
    for service in (stack.gateways[0], stack.edges[0]):
        line = await Line.open(service.url)
        try:
            bearer = f"Authorization: Bearer {channel.secret}"
            await line.write(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n{bearer}\r\n\r\n".encode())
            head = await line.read_until(b"\r\n\r\n")
        finally:
            line.close()
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"evil.example" not in head


METHODS = {
    "HEAD /livez": 200,
    "HEAD /nothing": 404,
    "OPTIONS /livez": 405,
    "OPTIONS *": 404,
    "PATCH /livez": 405,
    "TRACE /livez": 405,
    "CONNECT x:443": 400,
    "get /livez": 400,
    "GETT /livez": 400,
    "GET http://another.example/livez": 200,
    "GET livez": 400,
}


@pytest.mark.parametrize("line", METHODS)
async def test_every_method_has_one_answer(stack: Stack, line: str) -> None:
    """The second request shows that the first one's response was complete."""
    status = METHODS[line]
    for service in (stack.gateways[0], stack.edges[0]):
        connection = await Line.open(service.url)
        try:
            await connection.write(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if status != 400:
                await connection.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = (await connection.rest()).decode()
        finally:
            connection.close()
        assert received.startswith(f"HTTP/1.1 {status} "), received
        assert status == 400 or "\r\n\r\nok\n" in received, received
        first = received.partition("HTTP/1.1 200 OK")[0] if status != 200 else ""
        assert not (line.startswith("HEAD") and first.partition("\r\n\r\n")[2]), received


async def test_a_body_is_asked_for_only_when_it_is_read(stack: Stack, channel: ApiKey) -> None:
    """Expect: 100-continue."""
    url, body = stack.gateways[0].url, b'{"topic": "orders.paid", "data": {}}'
    for secret, expected in ((channel.secret, b"HTTP/1.1 100 "), ("ak_wrong", b"HTTP/1.1 401 ")):
        line = await Line.open(url)
        try:
            await line.write(
                b"POST /v1/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                + f"Authorization: Bearer {secret}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            assert (await line.read_until(b"\r\n\r\n")).startswith(expected)
            if expected == b"HTTP/1.1 100 ":
                await line.write(body)
                assert (await line.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
        finally:
            line.close()


async def test_an_encoded_slash_belongs_to_a_name(api: Api, channel: ApiKey, listen: Listen) -> None:
    receiver = await listen(channel)
    name = "building%2F7"
    response = await api.call("PUT", f"/v2/subscriptions/{name}/3303/0/5700", key=channel)
    assert response.status == 200, response
    await api.publish(channel, reading(1, ep="building/7"))
    await receiver.received_numbers([1])
