"""A client that sends a request and ends its output (`shutdown`, as `nc -N` does) still gets the response."""

import asyncio

import pytest

from tests.faults.handmade import Line
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

EVENT = b'{"topic": "orders.paid", "data": {}}'
HEAD = (
    "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Length: {length}\r\n{more}\r\n"
)

REQUESTS = {
    "by a hot route": ("POST /v1/events", EVENT, "", 202),
    "by the app": ("POST /v1/events", EVENT, "Idempotency-Key: once\r\n", 202),
    "with a malformed body": ("POST /v1/events", b"{", "", 400),
    "a read": ("GET /v1/bindings", b"", "", 200),
    "a change": ("PUT /v1/bindings", b'["orders.#"]', "", 204),
    "a channel": ("PUT /v2/notification/websocket", b"", "", 201),
    "nothing there": ("GET /nothing", b"", "", 404),
    "health": ("GET /livez", b"", "", 200),
}


def request(line: str, secret: str, body: bytes = b"", more: str = "") -> bytes:
    head = HEAD.format(line=line, secret=secret, length=len(body), more=more)
    return head.encode() + body


async def answer(url: str, data: bytes, *, whole_at_once: bool = True) -> bytes:
    """Everything that the server sends after the data and the end of our output."""
    line = await Line.open(url)
    try:
        if whole_at_once:
            await line.write(data)
        else:
            for start in range(0, len(data), 40):
                await line.write(data[start : start + 40])
                await asyncio.sleep(0)
        line.end_output()
        return await line.rest()
    finally:
        line.close()


@pytest.mark.parametrize("whole_at_once", [True, False], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_whole_request_is_answered(stack: Stack, key: ApiKey, name: str, whole_at_once: bool) -> None:
    line, body, more, status = REQUESTS[name]

    received = await answer(
        stack.gateways[0].url, request(line, key.secret, body, more), whole_at_once=whole_at_once
    )

    assert received.startswith(f"HTTP/1.1 {status} ".encode()), received
    assert received.count(b"HTTP/1.1 ") == 1


async def test_every_request_of_a_pipeline_is_answered(stack: Stack, key: ApiKey) -> None:
    requests = b"".join(request("POST /v1/events", key.secret, EVENT) for _ in range(50))
    received = await answer(stack.gateways[0].url, requests)
    assert received.count(b"HTTP/1.1 202 ") == 50


async def test_half_a_request_is_not_carried_out(stack: Stack, key: ApiKey) -> None:
    whole = request("POST /v1/events", key.secret, EVENT)
    assert b" 202 " not in await answer(stack.gateways[0].url, whole[:-1])
    assert await answer(stack.gateways[0].url, whole[:30]) == b""


async def test_a_poll_that_does_not_wait_gets_what_is_pending(api: Api, stack: Stack, key: ApiKey) -> None:
    edge = stack.edges[0].url
    poll = request("GET /v2/notification/pull?noWait=true", key.secret)
    assert (await answer(edge, poll)).startswith(b"HTTP/1.1 204 ")
    await api.publish(key, reading(1, to=key.id))

    assert (await answer(edge, poll)).startswith(b"HTTP/1.1 200 ")
    await wait_until(lambda: _is_acked(edge, poll))


async def _is_acked(edge: str, poll: bytes) -> bool:
    return (await answer(edge, poll)).startswith(b"HTTP/1.1 204 ")


async def test_a_poll_that_waits_ends_with_its_client(api: Api, stack: Stack, key: ApiKey) -> None:
    """Most clients that end their output have gone. What is published then waits for the next poll."""
    edge = stack.edges[0].url
    assert await answer(edge, request("GET /v2/notification/pull", key.secret)) == b""
    await api.publish(key, reading(1, to=key.id))

    poll = request("GET /v2/notification/pull?noWait=true", key.secret)
    assert (await answer(edge, poll)).startswith(b"HTTP/1.1 200 ")
