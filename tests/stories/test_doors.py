"""Every door answers by our contract: gateway and edge, alone and in one process (docs/protocols/http.md)."""

import json
from collections.abc import Iterator

import pytest

from tests.faults.handmade import Line
from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import ApiKey
from tests.harness.stack import Stack

READ = "GET, HEAD"
EDITED = "DELETE, GET, HEAD, PUT"
HEALTH = {"/livez": READ, "/readyz": READ, "/metrics": READ}
GATEWAY = {
    "/openapi.json": READ,
    "/asyncapi.json": READ,
    "/v1/accounts": "GET, HEAD, POST",
    "/v1/audit": READ,
    "/v1/accounts/a%2Fb": "DELETE, GET, HEAD, PATCH",
    "/v1/api-keys/x": "DELETE, GET, HEAD",
    "/v1/bindings": EDITED,
    "/v1/channels": "GET, HEAD, POST",
    "/v1/channels/a%2Fb": "DELETE, GET, HEAD, PATCH",
    "/v1/channels/x/deliveries": READ,
    "/v1/channels/x/deliveries/1-0": READ,
    # Also the place of an attempt of that name, which there is never.
    "/v1/channels/x/deliveries/retry": "POST",
    "/v1/channels/x/pause": "POST",
    "/v1/events": "POST",
    "/v1/events/a/b%2Fc": READ,
    "/v2/notification/websocket": EDITED,
    "/v2/notification/callback": EDITED,
    "/v2/notification/channel": READ,
    "/v2/subscriptions": EDITED,
    "/v2/subscriptions/lamp/3/0": EDITED,
    "/v2/api_auth": "PUT",
    "/v2/account/websockets": READ,
    "/v2/accounts/a%2Fb/websockets": READ,
    "/api/v1/websocket/session": "POST",
}
EDGE = {
    "/v1/socket": READ,
    "/v1/stream": "GET",
    "/v2/notification/pull": "DELETE, GET",
    "/v2/notification/websocket-connect": READ,
    "/socket": READ,
    "/api/v1/websocket": READ,
}
DOORS = [
    *(("gateway", path, allowed) for path, allowed in (GATEWAY | HEALTH).items()),
    *(("edge", path, allowed) for path, allowed in (EDGE | HEALTH).items()),
    *(("all", path, allowed) for path, allowed in (GATEWAY | EDGE | HEALTH).items()),
]
METHODS = [
    "DELETE",
    "GET",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PURGE",
    "PUT",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNLINK",
]


@pytest.fixture(scope="module")
def single() -> Iterator[AllInOne]:
    with all_in_one() as process:
        process.start()
        process.wait_ready()
        yield process


@pytest.fixture
def urls(stack: Stack, single: AllInOne) -> dict[str, str]:
    return {"gateway": stack.gateways[0].url, "edge": stack.edges[0].url, "all": single.url}


class Wire(Line):
    """A connection on which one request follows the other: so it shows where a response ends."""

    async def ask(
        self, target: str, *, headers: str = "", body: bytes = b"", is_head: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the response to `GET /path`."""
        head = f"{target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        await self.write(head.encode() + body)
        first, *lines = (await self.read_until(b"\r\n\r\n")).decode().strip().split("\r\n")
        got = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if is_head else int(got.get("content-length", 0))
        return int(first.split()[1]), got, await self.read(length)


def assert_is_ours(status: int, headers: dict[str, str], body: bytes) -> None:
    """No redirect, no bug, no page of a framework; and the error says more than its status."""
    assert not 300 <= status < 400
    assert status != 500
    assert "html" not in headers.get("content-type", "")
    if status >= 400 and body:
        assert headers["content-type"] == "application/json", body
        error = json.loads(body)
        assert error["request_id"] == headers["x-request-id"]
        assert error["message"] not in ("Not Found", "Method Not Allowed", "Bad Request")


@pytest.mark.parametrize(("service", "path", "allowed"), DOORS)
async def test_the_methods_of_a_path(urls: dict[str, str], service: str, path: str, allowed: str) -> None:
    wire = await Wire.open(urls[service])
    try:
        for method in METHODS:
            status, headers, body = await wire.ask(f"{method} {path}", is_head=method == "HEAD")
            assert_is_ours(status, headers, body)
            is_allowed = method in allowed.split(", ")
            assert (status == 405) is not is_allowed, (method, status, body)
            assert is_allowed or headers["allow"] == allowed
    finally:
        wire.close()


@pytest.mark.parametrize(("service", "path"), [door[:2] for door in DOORS if "HEAD" in door[2]])
async def test_head_is_get_without_a_body(
    urls: dict[str, str], single: AllInOne, stack: Stack, service: str, path: str
) -> None:
    token = single.admin_token if service == "all" else stack.admin_token
    wire = await Wire.open(urls[service])
    try:
        bearer = f"Authorization: Bearer {token}\r\nX-Request-Id: same\r\n"
        headed = await wire.ask(f"HEAD {path}", headers=bearer, is_head=True)
        got = await wire.ask(f"GET {path}", headers=bearer)
    finally:
        wire.close()
    assert headed[0] == got[0]
    changes = {"date"} | ({"content-length"} if path == "/metrics" else set())
    for headers in (headed[1], got[1]):
        assert int(headers["content-length"]) > 0
        for name in changes:
            headers.pop(name, None)
    assert headed[1] == got[1]


OTHER_PATHS = {
    "gateway": [
        *("/livez/", "//livez", "/./livez", "/livez/.", "/a/../livez", "/Livez", "/livez;x", "/livez%20"),
        *("/%6Civez", "/livez%2F", "/%2Flivez", "/v1%2Fbindings", "/v1/bind%69ngs", "/v1/bindings%00"),
        *("/v1/bindings/", "/v1/./bindings", "/v1//bindings", "/v1/bindings%3Fa", "/v1/bindings%23a"),
        *("/V1/bindings", "/v2%2Faccount/websockets", "/", "/%", "/%zz", "/%FF", "/?a=b", "/index.html"),
        *("/docs", "/redoc", "/favicon.ico", "/openapi.json/", "/metrics/", "/openapi.json%20"),
        *("/asyncapi.json/", "/asyncapi.json%20"),
    ],
    "edge": [
        *("/v2/notification/pull/", "/v2/notification%2Fpull", "/v2/notification/%70ull", "//socket"),
        *("/v1/stream/", "/v1/strea%6D", "/V1/stream", "/v1//stream"),
        *("/v1/socket/", "/v1/socke%74", "/V1/socket", "/v1//socket"),
        *("/socket/", "/sockets", "/api/v1/websocket/", "/%61pi/v1/websocket", "/%6Civez", "/metrics%2F"),
    ],
}


@pytest.mark.parametrize("service", ["gateway", "edge", "all"])
async def test_another_spelling_is_another_path(urls: dict[str, str], service: str) -> None:
    wire = await Wire.open(urls[service])
    try:
        for path in OTHER_PATHS.get(service) or [each for paths in OTHER_PATHS.values() for each in paths]:
            for method in ("GET", "PUT", "OPTIONS"):
                status, headers, body = await wire.ask(f"{method} {path}")
                assert status == 404, (path, status, body)
                assert_is_ours(status, headers, body)
    finally:
        wire.close()


SERVED = {
    "GET /livez?": 200,
    "GET /livez?a=b&c": 200,
    "GET /livez?a=/../%2F%00%FF+": 200,
    "GET http://another.example/livez": 200,
    "GET HTTPS://another.example:8000/livez?a": 200,
    "GET http://[::1]:80/livez": 200,
    "GET http://another.example": 404,
    "GET http://another.example?/livez": 404,
    "GET http://another.example//livez": 404,
    "OPTIONS *": 404,
}
REFUSED = {
    "get /livez": "capitals",
    "Get /livez": "capitals",
    "GETT /livez": "capitals",
    "GET livez": "path",
    "GET *": "path",
    "GET ?a": "path",
    "GET http:///livez": "path",
    "GET http://user@x/livez": "credentials",
    "GET http://user:word@x/livez": "credentials",
    "GET ftp://x/livez": "path",
    "GET /livez#a": "fragment",
    "GET http://x/livez#a": "fragment",
    "GET /livez?a#b": "fragment",
    "CONNECT x:443": "CONNECT",
    "CONNECT /livez": "CONNECT",
    "GET /é": "ASCII",
}


@pytest.mark.parametrize("service", ["gateway", "edge", "all"])
async def test_every_form_of_a_url_has_one_answer(urls: dict[str, str], service: str) -> None:
    wire = await Wire.open(urls[service])
    try:
        for target, status in SERVED.items():
            assert (await wire.ask(target))[0] == status, target
    finally:
        wire.close()
    for target, word in REFUSED.items():
        wire = await Wire.open(urls[service])
        try:
            status, headers, body = await wire.ask(target)
        finally:
            wire.close()
        assert status == 400, target
        assert_is_ours(status, headers, body)
        assert word in json.loads(body)["message"], (target, body)


BODY = b'{"topic": "orders.paid", "data": {}}'
EXPECTATIONS = {
    "Expect: 100-continue": 100,
    "Expect: 100-Continue \t": 100,
    "Expect: , 100-continue,": 100,
    "Expect: 100-continue\r\nExpect: 100-CONTINUE": 100,
    "Expect: 100-continue, more": 417,
    "Expect: more": 417,
    "Expect: 100-continue;q=1": 417,
    "Expect: 100-continue\r\nExpect: more": 417,
    "Expect:": 202,
}


@pytest.mark.parametrize("given", EXPECTATIONS)
async def test_an_expectation(stack: Stack, channel: ApiKey, given: str) -> None:
    first = EXPECTATIONS[given]
    headers = f"Authorization: Bearer {channel.secret}\r\nContent-Length: {len(BODY)}\r\n{given}\r\n"
    wire = await Wire.open(stack.gateways[0].url)
    try:
        status, got, body = await wire.ask(
            "POST /v1/events", headers=headers, body=BODY if first == 202 else b""
        )
        assert status == first, body
        if first == 100:
            await wire.write(BODY)
            assert (await wire.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
        if first == 417:
            assert_is_ours(status, got, body)
            assert json.loads(body)["type"] == "expectation_failed"
    finally:
        wire.close()


@pytest.mark.parametrize("kind", ["no secret", "no such path", "another method"])
async def test_a_refusal_instead_of_a_100_ends_the_connection(stack: Stack, kind: str) -> None:
    """Else the client's next request would be taken for the body that it did not send."""
    target = {"no such path": "POST /nothing", "another method": "PATCH /v1/events"}
    headers = f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"
    wire = await Wire.open(stack.gateways[0].url)
    try:
        status, got, body = await wire.ask(target.get(kind, "POST /v1/events"), headers=headers)
        assert status in (401, 404, 405)
        assert_is_ours(status, got, body)
        assert got["connection"] == "close"
        assert await wire.rest() == b""
    finally:
        wire.close()


async def test_http_1_0_has_no_expectations(stack: Stack, channel: ApiKey) -> None:
    wire = await Wire.open(stack.gateways[0].url)
    try:
        head = f"POST /v1/events HTTP/1.0\r\nAuthorization: Bearer {channel.secret}\r\n"
        await wire.write(f"{head}Expect: 100-continue, more\r\nContent-Length: {len(BODY)}\r\n\r\n".encode())
        await wire.write(BODY)
        assert (await wire.rest()).startswith(b"HTTP/1.1 202 ")
    finally:
        wire.close()
