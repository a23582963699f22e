"""CORS: pages of other origins may call the API and read its responses and errors."""

import pytest

from shared.store import keyspace
from tests.harness.api import Api, ApiKey, Response
from tests.harness.stack import Stack
from tests.stories.test_doors import Wire

PAGE = "https://app.example"
ORIGIN = {"Origin": PAGE}


def words(response: Response, header: str) -> set[str]:
    return {word.strip().lower() for word in response.headers[header].split(",")}


async def preflight(
    api: Api, path: str, *, method: str = "PUT", headers: str = "", origin: str = PAGE
) -> Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return await api.call("OPTIONS", path, headers=asked)


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/v1/events", "/v2/subscriptions/lamp/3/0", "/v2/notification/callback", "/v2/nothing"]
)
async def test_preflight_allows_the_methods_and_headers(api: Api, path: str, method: str) -> None:
    response = await preflight(
        api, path, method=method, headers="authorization,content-type,idempotency-key,x-requested-with"
    )

    assert response.status == 200
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert method.lower() in words(response, "Access-Control-Allow-Methods")
    allowed = words(response, "Access-Control-Allow-Headers")
    assert {"authorization", "content-type", "idempotency-key", "x-requested-with"} <= allowed
    assert int(response.headers["Access-Control-Max-Age"]) >= 600
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    "lines",
    [
        [b"authorization, x-odd"],
        [b"authorization", b"x-odd"],
        [b"", b"authorization\t,", b", x-odd ,"],
    ],
)
async def test_the_headers_may_come_in_several_lines(stack: Stack, lines: list[bytes]) -> None:
    wire = await Wire.open(stack.gateways[0].url)
    try:
        asked = "".join(f"Access-Control-Request-Headers: {line.decode()}\r\n" for line in lines)
        status, headers, _ = await wire.ask(
            "OPTIONS /v1/events",
            headers=f"Origin: {PAGE}\r\nAccess-Control-Request-Method: PATCH\r\n{asked}",
        )
    finally:
        wire.close()
    assert status == 200
    assert headers["access-control-allow-headers"] == "authorization, x-odd"


@pytest.mark.parametrize("method", ["put", "TRACE", "x", "GET, PUT", ""])
async def test_a_preflight_for_another_method_is_refused_in_our_form(api: Api, method: str) -> None:
    response = await preflight(api, "/v1/events", method=method)

    assert response.status == 400
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.json["request_id"] == response.headers["X-Request-Id"]
    assert "Access-Control-Allow-Methods" in response.json["message"]


async def test_responses_and_errors_carry_cors_headers(api: Api, key: ApiKey) -> None:
    responses = [
        await api.call("GET", "/v2/subscriptions", key=key, headers=ORIGIN),
        await api.call("GET", "/v2/subscriptions", headers=ORIGIN),
        await api.call("GET", "/v2/nothing", headers=ORIGIN),
        await api.call("PATCH", "/v2/subscriptions", headers=ORIGIN),
        await api.call("PUT", "/v2/subscriptions", key=key, data=b"{", headers=ORIGIN),
        await api.call("POST", "/v1/events", key=key, data=b" " * (8 * 1024 * 1024 + 1), headers=ORIGIN),
    ]

    assert [response.status for response in responses] == [200, 401, 404, 405, 400, 413]
    for response in responses:
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert {"x-request-id", "retry-after"} <= words(response, "Access-Control-Expose-Headers")


async def test_internal_errors_carry_cors_headers(api: Api, channel: ApiKey, stack: Stack) -> None:
    with stack.redis.client() as redis:
        redis.set(keyspace.channel(channel.id), "not a channel", ex=60)
        response = await api.call("GET", "/v2/notification/websocket", key=channel, headers=ORIGIN)
        redis.delete(keyspace.channel(channel.id))

    assert response.status == 500
    assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_the_edge_sends_cors_headers(api: Api, stack: Stack) -> None:
    edge = api.at(stack.edges[0].url)

    response = await edge.call("GET", "/v2/notification/websocket-connect", headers=ORIGIN)

    assert response.status == 426
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert (await preflight(edge, "/v2/notification/pull", headers="authorization")).status == 200
    assert (await preflight(edge, "/v1/stream", headers="authorization, last-event-id")).status == 200


async def test_requests_without_an_origin_get_no_cors_headers(api: Api, key: ApiKey) -> None:
    response = await api.call("GET", "/v2/subscriptions", key=key)

    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
async def test_operational_endpoints_have_no_cors(api: Api, path: str) -> None:
    response = await api.call("GET", path, headers=ORIGIN)

    assert response.status == 200
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_allowed_origins_are_a_setting(api: Api, stack: Stack, key: ApiKey) -> None:
    listed = stack.new_gateway("listed", ALLOWED_ORIGINS=f"{PAGE}, http://localhost:3000")
    closed = stack.new_gateway("closed", ALLOWED_ORIGINS="none")
    try:
        for gateway in (listed, closed):
            gateway.start()
        for gateway in (listed, closed):
            gateway.wait_ready()
        at_listed, at_closed = api.at(listed.url), api.at(closed.url)

        allowed_page = await at_listed.call("GET", "/v2/subscriptions", key=key, headers=ORIGIN)
        assert allowed_page.headers["Access-Control-Allow-Origin"] == PAGE
        assert (await preflight(at_listed, "/v1/events")).headers["Access-Control-Allow-Origin"] == PAGE
        for at, page in ((at_listed, "https://other.example"), (at_closed, PAGE)):
            response = await at.call("GET", "/v2/subscriptions", key=key, headers={"Origin": page})
            assert response.status == 200
            assert "Access-Control-Allow-Origin" not in response.headers
            refused = await preflight(at, "/v1/events", origin=page)
            assert refused.status == 405
            assert "Access-Control-Allow-Origin" not in refused.headers
    finally:
        listed.close()
        closed.close()
