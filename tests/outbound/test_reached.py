"""Whether a call that was out of time had reached its receiver, and a response before the body was read."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import uvloop

from shared.outbound.client import Outbound
from tests.outbound.conftest import LOOPBACK

MEGABYTE = 1024 * 1024
REFUSAL = b"HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Loop = Callable[[], asyncio.AbstractEventLoop]
Listening = Callable[[], AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def silent(scheme: str = "http", *, buffer_bytes: int | None = None) -> AsyncIterator[str]:
    """The URL of a receiver that accepts connections and reads nothing."""
    with socket.socket() as listening:
        if buffer_bytes is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/"


@contextlib.asynccontextmanager
async def full() -> AsyncIterator[str]:
    """The URL of a receiver whose kernel drops further connections, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(address)
        yield f"http://127.0.0.1:{address[1]}/"


@pytest.mark.parametrize(
    ("listening", "size", "was_reached"),
    [
        (silent, 1000, True),
        (lambda: silent(buffer_bytes=4096), 16 * MEGABYTE, True),
        (full, 1000, False),
        (lambda: silent("https"), 1000, False),
    ],
    ids=["no response", "body is not read", "no connection", "no TLS"],
)
async def test_a_time_out_says_whether_a_connection_carried_the_request(
    hasty: Outbound, listening: Listening, size: int, was_reached: bool
) -> None:
    async with listening() as url:
        attempt = await hasty.send("PUT", url, headers={}, body=bytes(size))

    assert (attempt.error, attempt.was_reached) == ("timed-out", was_reached)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("size", [112_000, 4 * MEGABYTE])
def test_a_413_before_the_body_is_read_is_seen(loop: Loop, size: int) -> None:
    """As proxies do it: they refuse by the head, and close while the body is still on its way."""

    async def scenario() -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(REFUSAL)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
        port = server.sockets[0].getsockname()[1]
        async with server, Outbound(policy=LOOPBACK) as calls:
            for _ in range(20):
                attempt = await calls.send("PUT", f"http://127.0.0.1:{port}/", headers={}, body=bytes(size))
                assert (attempt.status, attempt.error) == (413, "")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
