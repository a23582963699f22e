"""Strangers send long bodies: a gateway keeps none of them, and answers others meanwhile."""

import asyncio
import time

import aiohttp
import pytest

from tests.conftest import Start
from tests.faults.handmade import Line
from tests.harness.api import Api
from tests.harness.events import reading
from tests.harness.processes import Service

KIB = 1024
MIB = 1024 * KIB
STRANGERS = 40
BODY = b"[" + b" " * (8 * MIB)
GROWTH_LIMIT_BYTES = 48 * MIB
"""All their bodies are 320 MiB. A connection may buffer some 300 KiB before it stops reading."""

WRONG = "accessToken=" + "0f" * 16 + "&secretKey=" + "x" * 64
REQUESTS = {
    "push-unknown-session": (f"POST /api/v1/websocket/session?session={'0f' * 16}", {404}),
    "push-wrong-credentials": (f"POST /api/v1/websocket/session?session={'0f' * 16}&{WRONG}", {401}),
    "token": ("PUT /v2/api_auth", {413}),
    "publish": ("POST /v1/events", {401}),
    "device": ("PUT /v2/notification/websocket", {401}),
    "account": ("POST /v1/accounts", {401}),
}


@pytest.mark.parametrize(
    ("name", "is_chunked"),
    [*((name, False) for name in REQUESTS), ("push-unknown-session", True), ("token", True)],
)
async def test_forty_long_bodies_cost_a_gateway_no_memory(
    start: Start, http: aiohttp.ClientSession, name: str, is_chunked: bool
) -> None:
    stack = start(edges=0)
    [gateway] = stack.gateways
    api = Api(http, gateway.url, stack.admin_token)
    key = await api.api_key()
    head, statuses = REQUESTS[name]
    before = gateway.rss_bytes

    strangers = [asyncio.create_task(status_of(gateway, head, is_chunked)) for _ in range(STRANGERS)]
    began_s = time.monotonic()
    await api.publish(key, reading(1, to=key.id))
    took_s = time.monotonic() - began_s
    answers = set(await asyncio.gather(*strangers))

    growth = gateway.peak_rss_bytes - before
    print(f"{name}: the gateway grew by {growth / MIB:.1f} MiB; a publish took {took_s:.3f} s")
    assert answers == statuses
    assert growth < GROWTH_LIMIT_BYTES
    assert "Traceback" not in gateway.stderr


async def test_a_token_request_without_its_body_is_answered_soon(
    start: Start, http: aiohttp.ClientSession
) -> None:
    [gateway] = start(edges=0).gateways
    line = await Line.open(gateway.url)
    try:
        began_s = time.monotonic()
        await line.write(b"PUT /v2/api_auth HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        head = await line.read_until(b"\r\n\r\n")
        took_s = time.monotonic() - began_s
    finally:
        line.close()

    print(f"answered after {took_s:.1f} s")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert took_s < 15


async def status_of(gateway: Service, head: str, is_chunked: bool) -> int:
    """Sends the long body until the gateway has enough of it; the status of its response."""
    line = await Line.open(gateway.url)
    try:
        framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(BODY)}"
        await line.write(f"{head} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        await line.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) if is_chunked else BODY)
        return int((await line.read_until(b"\r\n\r\n")).split()[1])
    finally:
        line.close()
