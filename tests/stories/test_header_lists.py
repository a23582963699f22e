"""Headers that are lists, in every form that RFC 9110 allows; and headers with one value, given twice."""

import json

import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.sockets import CONNECT_PATH
from tests.harness.stack import Stack
from tests.stories.test_doors import Wire, assert_is_ours

UPGRADE = "Connection: Upgrade\r\n"
WEBSOCKET = "Upgrade: websocket\r\n"
VERSION = "Sec-WebSocket-Version: 13\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VALID = UPGRADE + WEBSOCKET + VERSION + KEY

HANDSHAKES = {
    "Connection in two lines": f"Connection: keep-alive\r\n{UPGRADE}{WEBSOCKET}{VERSION}{KEY}",
    "Connection with an empty line": f"Connection:\r\n{UPGRADE}{WEBSOCKET}{VERSION}{KEY}",
    "Connection with tabs": f"CONNECTION:\tkeep-alive\t,\tUPGRADE\t\r\n{WEBSOCKET}{VERSION}{KEY}",
    "Connection with empty members": f"Connection: ,, upgrade ,\r\n{WEBSOCKET}{VERSION}{KEY}",
    "Upgrade in two lines": f"{UPGRADE}Upgrade: h2c\r\n{WEBSOCKET}{VERSION}{KEY}",
    "Upgrade with an empty line": f"{UPGRADE}Upgrade:\r\n{WEBSOCKET}{VERSION}{KEY}",
    "Upgrade twice": f"{UPGRADE}{WEBSOCKET}{WEBSOCKET}{VERSION}{KEY}",
    "Upgrade with empty members": f"{UPGRADE}Upgrade: ,WebSocket \t,\r\n{VERSION}{KEY}",
    "a blank behind the version": f"{UPGRADE}{WEBSOCKET}Sec-WebSocket-Version:\t13 \t\r\n{KEY}",
    "blanks around the key": f"{UPGRADE}{WEBSOCKET}{VERSION}{KEY}".replace("==\r\n", "==\t \r\n"),
    "extensions in two lines": f"{VALID}Sec-WebSocket-Extensions: a;b=1\r\nSec-WebSocket-Extensions: c,,\r\n",
    "malformed extensions": f"{VALID}Sec-WebSocket-Extensions: @;;=\r\n",
}


async def handshake(stack: Stack, headers: str) -> tuple[int, dict[str, str], bytes]:
    wire = await Wire.open(stack.edges[0].url)
    try:
        return await wire.ask(f"GET {CONNECT_PATH}", headers=headers)
    finally:
        wire.close()


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_is_accepted(stack: Stack, channel: ApiKey, name: str) -> None:
    bearer = f"Authorization: Bearer {channel.secret}\r\n"
    assert (await handshake(stack, bearer + HANDSHAKES[name]))[0] == 101


@pytest.mark.parametrize(
    "form",
    [
        "Sec-WebSocket-Protocol: wss, pelion_{}\r\n",
        "Sec-WebSocket-Protocol: wss\r\nSec-WebSocket-Protocol: pelion_{}\r\n",
        "Sec-WebSocket-Protocol:\r\nSec-WebSocket-Protocol: pelion_{},wss\r\n",
        "Sec-WebSocket-Protocol: ,wss,\t,pelion_{}\t,\r\n",
        "SEC-WEBSOCKET-PROTOCOL:\tpelion_{} ,\twss\t\r\n",
        'Sec-WebSocket-Protocol: "wss, pelion_{}"\r\n',
    ],
)
async def test_the_secret_is_among_the_subprotocols(stack: Stack, channel: ApiKey, form: str) -> None:
    status, headers, _ = await handshake(stack, VALID + form.format(channel.secret))
    assert (status, headers["sec-websocket-protocol"]) == (101, "wss")


TWICE = ["Authorization", "Content-Type", "Origin", "X-Auth-Token", "X-API-AccessToken", "X-API-SecretKey"]
ASKED = {
    "gateway": ["POST /v1/events", "GET /v1/bindings", "GET /v2/account/websockets", "GET /livez"],
    "edge": ["GET /v2/notification/pull", "DELETE /v2/notification/pull", "GET /api/v1/websocket"],
}


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("values", [("a", "a"), ("a", "b"), ("", "a")])
async def test_a_header_with_one_value_is_given_once(
    stack: Stack, name: str, values: tuple[str, str]
) -> None:
    """Which one counts would be anybody's guess: a proxy's and ours may differ."""
    lines = f"{name}: {values[0]}\r\nAccept: x\r\n{name.upper()}: {values[1]}\r\n"
    for service, targets in ASKED.items():
        for target in targets:
            wire = await Wire.open(getattr(stack, f"{service}s")[0].url)
            try:
                status, headers, body = await wire.ask(target, headers=lines)
            finally:
                wire.close()
            assert status == 400, (target, body)
            assert_is_ours(status, headers, body)
            assert name.lower() in json.loads(body)["message"].lower()
    status, _, body = await handshake(stack, VALID + lines)
    assert (status, name.lower() in json.loads(body)["message"].lower()) == (400, True)


@pytest.mark.parametrize("more", [KEY, VERSION, "Sec-WebSocket-Version: 8\r\n"])
async def test_a_header_of_a_handshake_is_given_once(stack: Stack, channel: ApiKey, more: str) -> None:
    bearer = f"Authorization: Bearer {channel.secret}\r\n"
    status, headers, body = await handshake(stack, bearer + VALID + more)
    assert status in (400, 426)
    assert_is_ours(status, headers, body)


BODY = b'{"topic": "orders.paid", "data": {}}'
# What is added to a publish, and the status; None: the field that the error names.
PUBLISHES: dict[str, tuple[int, str]] = {
    "Accept: text/html\r\nAccept: */*;q=0, ,\r\n": (202, ""),
    "Accept-Encoding: gzip;q=0, *;q=0\r\nAccept-Encoding:\r\n": (202, ""),
    'Cache-Control: no-store,, x="a,b"\r\nCache-Control: no-cache\r\n': (202, ""),
    "TE: trailers, gzip\r\nTE:\r\n": (202, ""),
    'If-None-Match: "a", W/"b"\r\nIf-None-Match: *\r\n': (202, ""),
    'Content-Type: APPLICATION/JSON ; charset="utf-8";;x="a;b"\r\n': (202, ""),
    "Content-Type:\tapplication/x-ndjson\t\r\n": (202, ""),
    "Content-Encoding:\r\n": (202, ""),
    "Content-Encoding: identity\r\nContent-Encoding: IDENTITY ,\r\n": (202, ""),
    "Content-Encoding: gzip\r\n": (415, "Content-Encoding"),
    "Content-Encoding: identity\r\nContent-Encoding:\tGZIP\r\n": (415, "Content-Encoding"),
    "Content-Encoding: , br ,\r\n": (415, "Content-Encoding"),
    "Idempotency-Key: a\r\nIdempotency-Key: a\r\n": (400, "Idempotency-Key"),
    "Idempotency-Key: é\r\n": (400, "Idempotency-Key"),
    "Idempotency-Key:\r\n": (400, "Idempotency-Key"),
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 \t\r\ntracestate: a=b,,\r\n"
    "tracestate: c=d\r\n": (202, ""),
    "traceparent: a\r\ntraceparent: b\r\n": (202, ""),
    'X-Forwarded-For: ,1.2.3.4,\t,\r\nX-Forwarded-For:\r\nForwarded: for="_x", for=y\r\n': (202, ""),
}


@pytest.mark.parametrize("is_known", [False, True], ids=["the first request of a caller", "a later one"])
@pytest.mark.parametrize("given", PUBLISHES)
async def test_a_publish_with_a_list(
    api: Api, stack: Stack, channel: ApiKey, given: str, *, is_known: bool
) -> None:
    status, field = PUBLISHES[given]
    if is_known:
        # From then on it is served by callbacks.
        await api.publish(channel, {"topic": "a", "data": 1})
    headers = f"Authorization: Bearer {channel.secret}\r\nContent-Length: {len(BODY)}\r\n{given}"
    wire = await Wire.open(stack.gateways[0].url)
    try:
        got, answered, body = await wire.ask("POST /v1/events", headers=headers, body=BODY)
        assert got == status, body
        assert_is_ours(got, answered, body)
        if field:
            assert field in [each["name"] for each in json.loads(body)["fields"]]
    finally:
        wire.close()


async def test_blanks_around_a_value_are_no_part_of_it(stack: Stack, channel: ApiKey) -> None:
    replayed = []
    wire = await Wire.open(stack.gateways[0].url)
    try:
        for key in ("one", "\tone\t ", '"one" ', ' "one"\t'):
            headers = f"Authorization:\tBEARER   {channel.secret} \t\r\nContent-Length: {len(BODY)}\t\r\n"
            headers += f"Idempotency-Key:{key}\r\nX-Request-Id: mine\t \r\n"
            status, got, _ = await wire.ask("POST /v1/events", headers=headers, body=BODY)
            assert (status, got["x-request-id"]) == (202, "mine")
            replayed.append("idempotent-replayed" in got)
    finally:
        wire.close()
    assert replayed == [False, True, True, True]


async def test_a_byte_that_is_no_blank_belongs_to_the_secret(stack: Stack, channel: ApiKey) -> None:
    """Python's `strip` would remove a no-break space."""
    for sign in ("\xa0", "\x85", "\x1f"):
        wire = await Wire.open(stack.gateways[0].url)
        try:
            head = f"GET /v1/bindings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {channel.secret}{sign}"
            await wire.write(head.encode("latin-1") + b"\r\n\r\n")
            assert (await wire.read_until(b"\r\n"))[9:12] in (b"401", b"400")
        finally:
            wire.close()


@pytest.mark.parametrize(
    "lines",
    [
        "Connection: close, foo",
        "Connection: foo\r\nConnection: close",
        "Connection: Close\t",
        "Connection:\tkeep-alive\t,CLOSE,",
        "Connection: close\r\nConnection: keep-alive",
    ],
)
async def test_close_among_others_ends_the_connection(stack: Stack, lines: str) -> None:
    for service in (stack.gateways[0], stack.edges[0]):
        wire = await Wire.open(service.url)
        try:
            status, headers, body = await wire.ask("GET /livez", headers=f"{lines}\r\n")
            assert (status, headers["connection"], body[:3]) == (200, "close", b"ok\n")
            assert await wire.rest() == b""
        finally:
            wire.close()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Prefer: wait=1\r\nPrefer: respond-async", 202),
        ("Prefer: ,wait=1 ,\tRESPOND-ASYNC\t;x=1,", 202),
        ("Prefer: respond-async-never", 204),
        ("Prefer: x\r\nPrefer:", 204),
    ],
)
async def test_preferences(api: Api, stack: Stack, lines: str, status: int) -> None:
    account = await api.account()
    wire = await Wire.open(stack.gateways[0].url)
    try:
        headers = f"Authorization: Bearer {stack.admin_token}\r\n{lines}\r\n"
        assert (await wire.ask(f"DELETE /v1/accounts/{account}", headers=headers))[0] == status
    finally:
        wire.close()
