"""A receiver that stops reading holds no connection of the client, on either event loop.

Closing a connection would wait for what is unsent.
"""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from shared.outbound.client import Outbound
from tests.harness.waiting import wait_until
from tests.outbound.conftest import LOOPBACK
from tests.outbound.receivers import receiving, status

MEGABYTE = 1024 * 1024
EMPTY_200 = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LONG_200 = "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nx"

Loop = Callable[[], asyncio.AbstractEventLoop]
on_both_loops = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@on_both_loops
@pytest.mark.parametrize("size", [MEGABYTE - 1, 16 * MEGABYTE])
@pytest.mark.parametrize("head", ["", EMPTY_200, LONG_200])
def test_what_is_unsent_is_not_waited_for(loop: Loop, head: str, size: int) -> None:
    async def scenario() -> None:
        with socket.socket() as listening:
            # A small TCP window, into which not even the smaller body fits.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)
            port = listening.getsockname()[1]
            async with Outbound(policy=LOOPBACK, timeout_s=20 if head else 0.3) as calls:
                call = asyncio.create_task(
                    calls.send("PUT", f"http://127.0.0.1:{port}/", headers={}, body=bytes(size))
                )
                running = asyncio.get_running_loop()
                accepted, _ = await running.sock_accept(listening)
                with accepted:
                    await running.sock_sendall(accepted, head.encode())
                    attempt = await call
                    assert (attempt.status, attempt.error) == ((200, "") if head else (None, "timed-out"))
                    await wait_until(lambda: not held_to(port), what="the abort of the connection")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@on_both_loops
def test_a_healthy_receiver_keeps_one_connection(loop: Loop) -> None:
    async def scenario() -> None:
        async with receiving(status(204)) as receiver, Outbound(policy=LOOPBACK) as calls:
            for size in (2, MEGABYTE, 4 * MEGABYTE, 2):
                assert (await calls.send("PUT", receiver.url(), headers={}, body=bytes(size))).accepted
            assert receiver.connections == 1

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


def held_to(port: int) -> list[str]:
    """Open sockets connected to `port`. The kernel lists those that no process holds without an inode."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[2].endswith(f":{port:04X}") and row[9] != "0"]
