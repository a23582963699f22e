"""Requests of real clients that strict servers would refuse."""

import json

import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.raw import exchange
from tests.harness.stack import Stack

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SUBSCRIPTIONS = [{"endpoint-name": "lamp-*"}]


@pytest.mark.parametrize("authorization", ["AUTHORIZATION", "authorization", "aUtHoRiZaTiOn"])
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
async def test_header_names_and_the_bearer_scheme_in_any_case(
    stack: Stack, key: ApiKey, authorization: str, scheme: str
) -> None:
    lines = ("GET /v2/subscriptions HTTP/1.1", "HOST: x", f"{authorization}: {scheme} {key.secret}", "", "")

    status, _, body = await exchange(stack.gateways[0].url, "\n".join(lines))

    assert (status, json.loads(body)) == (200, [])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/subscriptions", 200),
        ("DELETE", "/v2/subscriptions", 204),
        ("GET", "/v2/notification/callback", 404),
        ("DELETE", "/v2/notification/callback", 404),
        ("GET", "/v2/notification/channel", 404),
        ("DELETE", "/v2/notification/websocket", 404),
        ("PUT", "/v2/notification/websocket", 201),
        ("PUT", "/v2/subscriptions/lamp/3303/0/5700", 200),
        ("DELETE", "/v2/subscriptions/lamp/3303/0/5700", 204),
        ("DELETE", "/v2/subscriptions/lamp", 204),
    ],
)
@pytest.mark.parametrize("content_type", [JSON, FORM, {"Content-Type": "nonsense"}])
async def test_a_content_type_without_a_body_is_ignored(
    api: Api, key: ApiKey, method: str, path: str, status: int, content_type: dict[str, str]
) -> None:
    """The Python SDK sends application/json with every request, urllib a form's type."""
    response = await api.call(method, path, key=key, headers=content_type, data=b"")

    assert response.status == status, response.text


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "", "nonsense"])
async def test_subscriptions_ignore_their_content_type(api: Api, key: ApiKey, content_type: str) -> None:
    body = json.dumps(SUBSCRIPTIONS).encode()

    response = await api.call(
        "PUT", "/v2/subscriptions", key=key, data=body, headers={"Content-Type": content_type}
    )

    assert response.status == 204, response.text
    assert await api.subscriptions(key) == SUBSCRIPTIONS


async def test_a_put_without_length_or_content_type(stack: Stack, key: ApiKey) -> None:
    """conn-node and shell scripts send a bare request line and the key."""
    for path, status in (("/v2/notification/websocket", 201), ("/v2/subscriptions/lamp/3/0", 200)):
        lines = (f"PUT {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key.secret}", "", "")
        got, headers, body = await exchange(stack.gateways[0].url, "\n".join(lines))
        assert got == status, body
        assert headers["x-request-id"]


async def test_the_accept_header_is_ignored(api: Api, channel: ApiKey) -> None:
    """The SDKs ask for text/uri-list or JSON with every request."""
    for accept in ("text/uri-list", "text/plain", "application/xml", "*/*"):
        response = await api.call(
            "GET", "/v2/notification/websocket", key=channel, headers={"Accept": accept}
        )
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json"


async def test_an_unexpected_body_is_ignored(api: Api, channel: ApiKey) -> None:
    for method, path, status in (
        ("GET", "/v2/notification/websocket", 200),
        ("DELETE", "/v2/subscriptions", 204),
        ("PUT", "/v2/subscriptions/lamp/3/0", 200),
        ("DELETE", "/v2/notification/websocket", 204),
    ):
        response = await api.call(method, path, key=channel, json={"any": "thing"})
        assert response.status == status, response.text
