"""A malformed WebSocket handshake gets a 4xx with our error body at once, never a closed connection."""

import json

import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.raw import exchange
from tests.harness.sockets import CONNECT_PATH
from tests.harness.stack import Stack

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
VERSION = "Sec-WebSocket-Version: 13\n"
UPGRADE = "Connection: Upgrade\nUpgrade: websocket\n"
TYPES = {
    400: "bad_request",
    405: "method_not_allowed",
    426: "upgrade_required",
    431: "headers_too_large",
}


def request(
    *headers: str, method: str = "GET", path: str = CONNECT_PATH, protocol: str = "HTTP/1.1", body: str = ""
) -> str:
    return f"{method} {path} {protocol}\nHost: localhost\n{''.join(headers)}\n{body}"


MALFORMED = {
    "no key": (request(UPGRADE, VERSION), 400, "Sec-WebSocket-Key"),
    "an empty key": (request(UPGRADE, VERSION, "Sec-WebSocket-Key: \n"), 400, "Sec-WebSocket-Key"),
    "two keys": (request(UPGRADE, VERSION, KEY, KEY), 400, "Sec-WebSocket-Key"),
    "a short key": (request(UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnQ=\n"), 400, "Sec-WebSocket-Key"),
    "a key without padding": (request(UPGRADE, VERSION, KEY.replace("==", "")), 400, "Sec-WebSocket-Key"),
    "a key that is no base64": (request(UPGRADE, VERSION, KEY.replace("d", "é")), 400, "Sec-WebSocket-Key"),
    "no version": (request(UPGRADE, KEY), 426, "Sec-WebSocket-Version"),
    "an old version": (request(UPGRADE, KEY, VERSION.replace("13", "8")), 426, "Sec-WebSocket-Version"),
    "a version in words": (request(UPGRADE, KEY, VERSION.replace("13", "x")), 426, "Sec-WebSocket-Version"),
    "two versions": (request(UPGRADE, KEY, VERSION, VERSION), 426, "Sec-WebSocket-Version"),
    "no Connection": (request("Upgrade: websocket\n", KEY, VERSION), 426, "Connection"),
    "Connection without upgrade": (
        request("Connection: keep-alive\nUpgrade: websocket\n", KEY, VERSION),
        426,
        "Connection",
    ),
    "a garbled Connection": (
        request("Connection: Upgrade, =;\nUpgrade: websocket\n", KEY, VERSION),
        400,
        "Connection",
    ),
    "no Upgrade": (request("Connection: Upgrade\n", KEY, VERSION), 426, "Upgrade"),
    "another Upgrade": (request("Connection: Upgrade\nUpgrade: h2c\n", KEY, VERSION), 426, "Upgrade"),
    "neither": (request(KEY, VERSION), 426, "Upgrade"),
    "HTTP/1.0": (request(UPGRADE, KEY, VERSION, protocol="HTTP/1.0"), 426, "Upgrade"),
    "a POST": (request(UPGRADE, KEY, VERSION, method="POST"), 405, ""),
    "a POST with a body": (
        request(UPGRADE, KEY, VERSION, "Content-Length: 5\n", method="POST", body="hello"),
        405,
        "",
    ),
    "a GET with a body": (
        request(UPGRADE, KEY, VERSION, "Content-Length: 5\n", body="hello"),
        426,
        "Upgrade",
    ),
    "a GET with a chunked body": (
        request(UPGRADE, KEY, VERSION, "Transfer-Encoding: chunked\n", body="5\nhello\n0\n\n"),
        426,
        "Upgrade",
    ),
    "a GET whose body never comes": (
        request(UPGRADE, KEY, VERSION, "Content-Length: 500000000\n"),
        426,
        "Upgrade",
    ),
    "200 headers": (
        request(UPGRADE, KEY, VERSION, *(f"X-Header-{n}: {n}\n" for n in range(200))),
        431,
        "",
    ),
    "a header of 60 KB": (request(UPGRADE, KEY, VERSION, f"X-Header: {'x' * 60_000}\n"), 431, ""),
    "a path of 60 KB": (request(UPGRADE, KEY, VERSION, path=f"{CONNECT_PATH}?{'x' * 60_000}"), 431, ""),
    "a header over all bounds": (request(UPGRADE, KEY, VERSION, f"X-Header: {'x' * 200_000}\n"), 400, ""),
    "a header without a colon": (request(UPGRADE, KEY, VERSION, "nonsense\n"), 400, ""),
    "a folded header": (request(UPGRADE, KEY, VERSION, "X-Header: a\n  b\n"), 400, ""),
    "a path that is not ASCII": (request(UPGRADE, KEY, VERSION, path=f"{CONNECT_PATH}?é"), 400, ""),
    "a subprotocol that is no word": (
        request(UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: wss, a b\n"),
        400,
        "Sec-WebSocket-Protocol",
    ),
    "an empty subprotocol": (
        request(UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: \n"),
        400,
        "Sec-WebSocket-Protocol",
    ),
    "no HTTP at all": ("\x16\x03\x01 hello\n\n", 400, ""),
}


@pytest.mark.parametrize(
    ("text", "status", "header"), [pytest.param(*case, id=name) for name, case in MALFORMED.items()]
)
async def test_a_malformed_handshake_gets_an_error_body(
    stack: Stack, text: str, status: int, header: str
) -> None:
    got, headers, body = await exchange(stack.edges[0].url, text)

    assert got == status, body
    error = json.loads(body)
    assert (error["object"], error["code"], error["type"]) == ("error", status, TYPES[status])
    assert header.lower() in error["message"].lower()
    assert not header or header in [each["name"] for each in error["fields"]]
    assert error["request_id"] == headers["x-request-id"]
    assert headers["content-type"] == "application/json"
    if status == 426:
        assert headers["upgrade"] == "websocket"
    if status == 405:
        assert "GET" in headers["allow"]
    if header == "Sec-WebSocket-Version":
        assert headers["sec-websocket-version"] == "13"


async def test_an_error_never_repeats_the_secret(channel: ApiKey, stack: Stack) -> None:
    offered = f"Sec-WebSocket-Protocol: wss pelion_{channel.secret}\n"

    status, headers, body = await exchange(stack.edges[0].url, request(UPGRADE, KEY, VERSION, offered))

    assert status == 400
    assert channel.secret not in body + str(headers)


async def test_the_callers_request_id_is_kept(stack: Stack) -> None:
    text = request(UPGRADE, KEY, "X-Request-Id: mine-17\n")

    status, headers, body = await exchange(stack.edges[0].url, text)

    assert (status, headers["x-request-id"], json.loads(body)["request_id"]) == (426, "mine-17", "mine-17")


UNUSUAL = {
    "odd case": ("connection: UPGRADE\nUPGRADE: WebSocket\n", KEY.lower()[:18] + KEY[18:], VERSION.lower()),
    "a list": ("Connection: keep-alive, Upgrade\nUpgrade: websocket\n", KEY, VERSION),
    "two lines": ("Connection: Upgrade\nConnection: keep-alive\nUpgrade: websocket\n", KEY, VERSION),
    "another offer behind": ("Connection: Upgrade\nUpgrade: websocket, h2c\n", KEY, VERSION),
    "another offer before": ("Connection: Upgrade\nUpgrade: h2c\nUpgrade: websocket\n", KEY, VERSION),
    "twice": (UPGRADE, "Upgrade: websocket\n", KEY, VERSION),
    "empty members": ("Connection: , Upgrade,\nUpgrade: ,websocket ,\n", KEY, VERSION),
    "an empty body": (UPGRADE, KEY, VERSION, "Content-Length: 0\n"),
    "100 more headers": (UPGRADE, KEY, VERSION, *(f"X-Header-{n}: {n}\n" for n in range(100))),
}


@pytest.mark.parametrize("headers", [pytest.param(case, id=name) for name, case in UNUSUAL.items()])
async def test_unusual_but_valid_handshakes_are_accepted(
    channel: ApiKey, stack: Stack, headers: tuple[str, ...]
) -> None:
    text = request(*headers, f"Authorization: Bearer {channel.secret}\n")

    status, response_headers, _ = await exchange(stack.edges[0].url, text)

    assert status == 101
    assert response_headers["x-request-id"]
    assert response_headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_an_upgrade_offered_with_a_plain_request_is_ignored(
    api: Api, channel: ApiKey, stack: Stack, upgrade: str
) -> None:
    """Some HTTP clients offer h2c with every request over plain HTTP."""
    event = json.dumps(reading(1, to=channel.id))
    text = request(
        f"Connection: Upgrade, HTTP2-Settings\nUpgrade: {upgrade}\nHTTP2-Settings: AAMAAABk\n",
        f"Authorization: Bearer {channel.secret}\nContent-Length: {len(event)}\n",
        method="POST",
        path="/v1/events",
        body=event,
    )

    status, _, response = await exchange(stack.gateways[0].url, text)

    assert status == 202, response
    assert await api.queue_size(channel) == 1
