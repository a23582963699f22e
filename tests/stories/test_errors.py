"""Errors: the status, and a message that says why and names the field."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.store import keyspace
from tests.harness.api import Api, ApiKey, Response
from tests.harness.events import reading, readings
from tests.harness.raw import exchange
from tests.harness.stack import Stack

MIB = 1024 * 1024
HANDSHAKE = """GET /v2/notification/websocket-connect HTTP/1.1
Host: localhost
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==

"""


def assert_error(response: Response, status: int, type_: str, *, field: str = "") -> None:
    """An error of the one form. `field` is in a field's name, and in the message unless it is a position."""
    assert response.status == status, response.text
    error = response.json
    assert error["object"] == "error"
    assert error["code"] == status
    assert error["type"] == type_
    assert error["message"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert all(set(each) == {"name", "message"} for each in error["fields"])
    if field:
        assert any(field in each["name"] for each in error["fields"]), response.text
        assert field in error["message"] or field.startswith("["), response.text


NOT_EVENTS: list[tuple[str, Any, str]] = [
    ("an empty array", [], ""),
    ("a number", 17, ""),
    ("a text", "event", ""),
    ("null", None, ""),
    ("an array of numbers", [1], "[0]"),
    ("no topic", {"data": 1}, "topic"),
    ("no data", {"topic": "orders"}, "data"),
    ("a topic that is a number", {"topic": 5, "data": 1}, "topic"),
    ("an empty topic", {"topic": "", "data": 1}, "topic"),
    ("an id that is a number", {"topic": "orders", "data": 1, "id": 5}, "id"),
    ("a name that is a list", {"topic": "orders", "data": 1, "name": []}, "name"),
    ("a time that is a number", {"topic": "orders", "data": 1, "time": 5}, "time"),
    ("a `to` that is a number", {"topic": "orders", "data": 1, "to": 5}, "to"),
    ("a `to` that is no id", {"topic": "orders", "data": 1, "to": "unknown"}, "to"),
    ("a notification that is no object", {"topic": "device.notifications", "data": "x"}, "data"),
    ("a notification without a device", {"topic": "device.notifications", "data": {"path": "/1"}}, "ep"),
    ("a device that is a number", {"topic": "device.notifications", "data": {"ep": 1, "path": "/1"}}, "ep"),
    ("a path that is a number", {"topic": "device.notifications", "data": {"ep": "a", "path": 1}}, "path"),
    ("a registration without a device", {"topic": "device.registrations", "data": {"ept": "x"}}, "ep"),
    ("a type that is a number", {"topic": "device.registrations", "data": {"ep": "a", "ept": 1}}, "ept"),
    ("a de-registration of no device", {"topic": "device.de-registrations", "data": {}}, "data"),
    (
        "an async-response without an addressee",
        {"topic": "device.async-responses", "data": {"id": "1"}},
        "to",
    ),
]


@pytest.mark.parametrize(
    ("event", "field"), [pytest.param(event, field, id=name) for name, event, field in NOT_EVENTS]
)
async def test_invalid_event(api: Api, channel: ApiKey, event: Any, field: str) -> None:
    assert_error(await api.post_events(channel, event), 400, "validation_error", field=field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"topic": "a", "data": NaN}',
        b'{"topic": "\xff", "data": 1}',
        b'{"topic": "a", "data": "\\ud800"}',
        b'{"topic": "a", "data": 1} 2',
    ],
)
async def test_invalid_json(api: Api, key: ApiKey, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/v1/events"), ("PUT", "/v2/subscriptions")):
        response = await api.call(method, path, key=key, data=body, headers=headers)
        assert_error(response, 400, "validation_error")
    if body:
        response = await api.admin("POST", "/v1/accounts", data=body, headers=headers)
        assert_error(response, 400, "validation_error")


async def test_one_invalid_event_refuses_the_request(api: Api, channel: ApiKey) -> None:
    events = [*readings(range(3), to=channel.id), {"topic": "orders"}]

    assert_error(await api.post_events(channel, events), 400, "validation_error", field="[3]")

    assert await api.queue_size(channel) == 0


async def test_another_accounts_key_cannot_be_addressed(api: Api, channel: ApiKey) -> None:
    stranger = await api.api_key()

    response = await api.post_events(stranger, reading(1, to=channel.id))

    assert_error(response, 400, "validation_error", field="to")
    assert await api.queue_size(channel) == 0


async def test_more_than_ten_thousand_events(api: Api, key: ApiKey) -> None:
    event = {"topic": "t", "data": 0}

    assert len(await api.publish(key, *[event] * 10_000)) == 10_000
    assert_error(await api.post_events(key, [event] * 10_001), 413, "payload_too_large")


async def test_an_event_of_more_than_256_kib(api: Api, channel: ApiKey) -> None:
    def event(size: int) -> dict[str, Any]:
        return {"topic": "t", "data": "x" * size, "to": channel.id}

    assert await api.publish(channel, event(255 * 1024)) == [1]
    response = await api.post_events(channel, [event(1), event(257 * 1024)])
    assert_error(response, 413, "payload_too_large", field="[1]")
    assert await api.queue_size(channel) == 1


async def test_a_body_of_more_than_8_mib(api: Api, key: ApiKey) -> None:
    def body(size: int) -> bytes:
        events = b"[" + b",".join([b'{"topic":"t","data":"' + b"x" * 100_000 + b'"}'] * 80)
        return events + b" " * (size - len(events) - 1) + b"]"

    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * MIB

    assert (await api.call("POST", "/v1/events", key=key, data=body(8 * MIB))).status == 202
    response = await api.call("POST", "/v1/events", key=key, data=body(8 * MIB + 1))
    assert_error(response, 413, "payload_too_large")
    response = await api.call("POST", "/v1/events", key=key, data=in_pieces())
    assert_error(response, 413, "payload_too_large")


async def test_authentication(api: Api, key: ApiKey) -> None:
    secret = key.secret
    garbled = ["", "x", "ak_", secret[:-1], secret + "0", secret.upper(), secret[3:], "ak_" + "é" * 64]
    garbled += [f"ak_{key.id}{'0' * (len(secret) - 35)}", "ak_" + "x" * 10_000]
    for token in garbled:
        response = await api.call("GET", "/v2/subscriptions", token=token)
        assert_error(response, 401, "invalid_auth")
    for value in ("", "Bearer", f"Basic {secret}", secret, f"Bearer {secret} {secret}"):
        response = await api.call("GET", "/v2/subscriptions", headers={"Authorization": value})
        assert_error(response, 401, "invalid_auth")
    assert_error(await api.call("GET", "/v2/subscriptions"), 401, "invalid_auth")
    for scheme in ("bearer", "BEARER", "Bearer"):
        response = await api.call("GET", "/v2/subscriptions", headers={"Authorization": f"{scheme} {secret}"})
        assert response.status == 200


async def test_scopes(api: Api) -> None:
    publisher = await api.api_key(scopes=("publish",))
    receiver = await api.api_key(account=publisher.account, scopes=("receive",))
    await api.register(receiver)

    assert await api.publish(publisher, reading(1, to=receiver.id)) == [1]
    assert_error(await api.post_events(receiver, reading(1)), 403, "access_denied")
    for method, path in (
        ("GET", "/v2/subscriptions"),
        ("PUT", "/v2/subscriptions"),
        ("DELETE", "/v2/subscriptions"),
        ("GET", "/v2/notification/websocket"),
        ("PUT", "/v2/notification/websocket"),
        ("DELETE", "/v2/notification/websocket"),
        ("GET", "/v2/notification/channel"),
    ):
        assert_error(await api.call(method, path, key=publisher), 403, "access_denied")


async def test_administration_needs_the_admin_token(api: Api, key: ApiKey) -> None:
    lacking = (403, "access_denied")
    for token, refusal in (
        (None, (401, "invalid_auth")),
        ("wrong", (401, "invalid_auth")),
        (key.secret, lacking),
    ):
        for method, path in (
            ("POST", "/v1/accounts"),
            ("POST", f"/v1/accounts/{key.account}/api-keys"),
            ("DELETE", f"/v1/api-keys/{key.id}"),
        ):
            response = await api.call(method, path, token=token, json={"name": "x", "scopes": ["publish"]})
            assert_error(response, *refusal)


async def test_no_such_path_or_method(api: Api, key: ApiKey) -> None:
    for path in ("/", "/v1", "/v2/nothing", "/v1/events/17", "/api/x", "/v2/notification/websocket/x"):
        assert_error(await api.call("GET", path, key=key), 404, "not_found")
    assert_error(await api.call("GET", "/v1/events", key=key), 405, "method_not_allowed")
    assert_error(await api.call("POST", "/v2/subscriptions", key=key), 405, "method_not_allowed")


async def test_each_response_has_its_own_request_id(api: Api, channel: ApiKey, stack: Stack) -> None:
    responses = [
        await api.post_events(channel, reading(1)),
        await api.register(channel),
        await api.channel(channel),
        await api.put_subscriptions(channel, []),
        await api.delete_channel(channel),
        await api.call("GET", "/livez"),
        await api.call("GET", "/nothing"),
    ]
    assert len({response.headers["X-Request-Id"] for response in responses}) == len(responses)


async def test_unexpected_error(api: Api, channel: ApiKey, stack: Stack) -> None:
    """A bug, here a key in Redis of the wrong type, gets an error of the same form."""
    with stack.redis.client() as redis:
        redis.set(keyspace.channel(channel.id), "not a channel", ex=60)
        response = await api.channel(channel)
        redis.delete(keyspace.channel(channel.id))

    assert response.status == 500
    assert_error(response, 500, response.json["type"])
    assert "Traceback" not in response.text


def without(header: str) -> str:
    return re.sub(rf"^{header}:.*\n", "", HANDSHAKE, flags=re.M)


@pytest.mark.parametrize(
    ("request_", "status", "header"),
    [
        pytest.param(without("Sec-WebSocket-Key"), 400, "Sec-WebSocket-Key", id="no key"),
        pytest.param(
            HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400, "Sec-WebSocket-Key", id="bad key"
        ),
        pytest.param(without("Sec-WebSocket-Version"), 426, "Sec-WebSocket-Version", id="no version"),
        pytest.param(
            HANDSHAKE.replace("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version", id="old version"
        ),
        pytest.param(without("Upgrade"), 426, "Upgrade", id="no upgrade"),
        pytest.param(without("Connection"), 426, "Connection", id="no connection"),
        pytest.param(without("(Connection|Upgrade)"), 426, "Upgrade", id="a plain GET"),
        pytest.param(
            HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c"), 426, "Upgrade", id="another upgrade"
        ),
    ],
)
async def test_incomplete_handshake(stack: Stack, request_: str, status: int, header: str) -> None:
    got, headers, body = await exchange(stack.edges[0].url, request_)

    assert got == status, body
    error = json.loads(body)
    assert (error["object"], error["code"]) == ("error", status)
    assert error["type"] == {400: "bad_request", 426: "upgrade_required"}[status]
    assert header.lower() in error["message"].lower()
    assert error["request_id"] == headers["x-request-id"]
    if status == 426:
        assert headers["upgrade"] == "websocket"
    if "Version" in header:
        assert headers["sec-websocket-version"] == "13"
