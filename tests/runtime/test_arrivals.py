"""Connections without a request: bounded, the oldest closed, and never in the way of one with a request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.runtime.http.arrivals import HEADS_PER_TURN, Arrivals
from shared.runtime.http.client_address import Network
from shared.runtime.http.server import listener, serve
from shared.runtime.settings import Settings
from tests.faults.handmade import Line
from tests.harness.waiting import wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LOOPBACK = Settings.model_validate({"trusted_proxies": "127.0.0.0/8"}).trusted_proxies

Serve = Callable[[Arrivals], Awaitable[str]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await Response(b"%d" % len(body))(scope, receive, send)


@pytest.fixture
async def served() -> AsyncIterator[Serve]:
    """Serves with these arrivals; the URL."""
    stop, servers = asyncio.Event(), list[asyncio.Task[None]]()

    async def begin(arrivals: Arrivals) -> str:
        listening, started = listener("127.0.0.1", 0), asyncio.Event()
        serving = serve(app, listening, stop=stop, arrivals=arrivals, on_start=started.set)
        servers.append(asyncio.create_task(serving))
        await started.wait()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield begin
    stop.set()
    await asyncio.gather(*servers)


def bounded(*, most: int = 100, most_per_address: int = 100, trusted: tuple[Network, ...] = ()) -> Arrivals:
    return Arrivals(most=most, most_per_address=most_per_address, trusted=trusted)


async def silent_lines(url: str, arrivals: Arrivals, count: int) -> list[Line]:
    lines = []
    for _ in range(count):
        before = len(arrivals)
        lines.append(await Line.open(url))
        if before < 3:
            # The order in which they are accepted is that in which they are closed.
            await wait_until(lambda before=before: len(arrivals) > before)  # type: ignore[misc]
    return lines


@pytest.mark.parametrize("bounds", [(3, 100), (100, 3)], ids=["in all", "of an address"])
async def test_the_oldest_silent_connection_makes_room(served: Serve, bounds: tuple[int, int]) -> None:
    arrivals = bounded(most=bounds[0], most_per_address=bounds[1])
    url = await served(arrivals)
    lines = await silent_lines(url, arrivals, 8)

    assert [await line.rest() for line in lines[:5]] == [b""] * 5
    assert len(arrivals) == 3
    for line in lines[5:]:
        await line.write(REQUEST)
        assert (await line.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert len(arrivals) == 0
    assert not arrivals._at
    for line in lines:
        line.close()


async def test_a_trusted_proxy_has_no_bound_of_its_address(served: Serve) -> None:
    arrivals = bounded(most_per_address=3, trusted=LOOPBACK)
    url = await served(arrivals)
    lines = [await Line.open(url) for _ in range(8)]

    await wait_until(lambda: len(arrivals) == 8)
    for line in lines:
        line.close()
    await wait_until(lambda: len(arrivals) == 0)


async def test_a_connection_between_requests_is_not_counted(served: Serve) -> None:
    arrivals = bounded(most=1)
    url = await served(arrivals)
    first = await Line.open(url)
    await first.write(REQUEST)
    await first.read_until(b"\r\n\r\n")
    lines = await silent_lines(url, arrivals, 1)

    await first.write(REQUEST)
    assert b"200 OK" in await first.read_until(b"\r\n\r\n")
    # An incomplete head counts again, and the older connection goes.
    await first.write(REQUEST[:10])
    assert await lines[0].rest() == b""
    await first.write(REQUEST[10:])
    assert b"200 OK" in await first.read_until(b"\r\n\r\n")
    first.close()


async def test_a_thousand_clients_at_once_are_all_served_in_lots(served: Serve) -> None:
    """Each has sent its request before the server accepts: none is closed for another."""
    arrivals = bounded(most=600, most_per_address=500)
    url = await served(arrivals)
    most = heads = 0
    parse = Arrivals.parse

    def counted(self: Arrivals, connection: object, on_turn: Callable[[], None]) -> bool:
        nonlocal most
        most = max(most, self._heads)
        return parse(self, connection, on_turn)  # type: ignore[arg-type]

    arrivals.parse = counted.__get__(arrivals)  # type: ignore[method-assign]
    # More than 64 KiB: what follows a head that waits for its turn is no part of it.
    body = b"x" * 100_000
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def request(number: int) -> bytes:
        line = await Line.open(url)
        await line.write(post + body if number % 100 == 0 else REQUEST)
        try:
            return await line.read_until(b"\r\n\r\n")
        finally:
            line.close()

    responses = await asyncio.gather(*map(request, range(1000)))
    heads = sum(response.startswith(b"HTTP/1.1 200 ") for response in responses)

    assert heads == 1000
    assert most <= HEADS_PER_TURN
    await wait_until(lambda: len(arrivals) == 0)


def test_heads_wait_in_turn_by_address() -> None:
    """A stranger who opens many connections delays another address by one lot."""

    class Peer:
        def __init__(self, address: str) -> None:
            self.client = (address, 1)

    async def run() -> list[str]:
        arrivals, parsed, is_done = bounded(), list[str](), asyncio.Event()
        for number in range(200):
            address = "192.0.2.2" if number == 150 else "192.0.2.1"

            def on_turn(address: str = address) -> None:
                parsed.append(address)
                if len(parsed) == 200:
                    is_done.set()

            if arrivals.parse(Peer(address), on_turn):  # type: ignore[arg-type]
                on_turn()
        await is_done.wait()
        return parsed

    parsed = asyncio.run(run())
    assert parsed.index("192.0.2.2") <= HEADS_PER_TURN + 1
