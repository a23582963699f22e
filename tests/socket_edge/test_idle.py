"""What an idle socket costs its edge: one task, no Redis command, and nothing once it has gone."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from websockets.protocol import Protocol

from services.socket_edge import edge as edge_module
from services.socket_edge.app import SOCKET_PATH, edge_app
from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.native.door import NATIVE_PATH
from services.socket_edge.native.socket import NativeSocket
from services.socket_edge.session_socket import SessionSocket
from shared.delivery.loop import DeliveryLoop
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.runtime.http.protocol import HttpProtocol
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.server import listener, serve
from shared.runtime.websocket.protocol import SocketProtocol
from shared.wire.native.frames import SUBPROTOCOL
from tests.harness.raw import SilentSocket
from tests.harness.waiting import wait_until
from tests.load.connections import RawSocket
from tests.load.sockets import CONNECT_PATH
from tests.socket_edge import conftest
from tests.store.stores import Stores


@pytest.fixture
async def origin(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The origin of an edge that runs within this process."""
    monkeypatch.setattr(edge_module, "SWEEP_S", conftest.LONG_S)
    edge = conftest.edge_of(stores, ping_interval_s=0.05)
    listening = listener("127.0.0.1", 0)
    started, stop = asyncio.Event(), asyncio.Event()
    app = RequestLog(edge_app(edge, health=[]))
    async with edge.running():
        serving = asyncio.create_task(
            serve(app, listening, stop=stop, on_shutdown=edge.shutdown, on_start=started.set)
        )
        await started.wait()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        stop.set()
        await serving


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every command that went to Redis."""
    commands: list[Any] = []
    send = Pipeline.send

    def recorded(self: Pipeline, sending: Sequence[Command], on_replies: OnReplies) -> None:
        commands.extend(command.arguments for command in sending)
        send(self, sending, on_replies)

    monkeypatch.setattr(Pipeline, "send", recorded)
    return commands


Open = Callable[[Stores, str, int], Awaitable[list[RawSocket]]]


async def leased(stores: Stores, origin: str, count: int) -> list[RawSocket]:
    """Sockets that answer pings, and have no task in this process."""
    sockets = []
    for _ in range(count):
        key, secret = await stores.api_key()
        await stores.make_channel(key.id)
        sockets.append(await RawSocket.open(origin, CONNECT_PATH, secret, lambda _: None))
    return sockets


async def sessions(stores: Stores, origin: str, count: int) -> list[RawSocket]:
    _, secret = await stores.api_key()
    return [await RawSocket.open(origin, SOCKET_PATH, secret, lambda _: None) for _ in range(count)]


async def natives(stores: Stores, origin: str, count: int) -> list[RawSocket]:
    _, secret = await stores.api_key()
    headers = {"Authorization": f"Bearer {secret}", "Sec-WebSocket-Protocol": SUBPROTOCOL}
    return [await RawSocket.open(origin, NATIVE_PATH, headers, lambda _: None) for _ in range(count)]


KINDS: list[tuple[Open, type]] = [(leased, LeasedSocket), (sessions, SessionSocket), (natives, NativeSocket)]


def numerous(count: int) -> set[str]:
    """The coroutines that at least so many tasks run."""
    names = Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]
    return {name for name, found in names.items() if found >= count}


def held(*kinds: type) -> int:
    """How many of these there are."""
    return sum(isinstance(each, kinds) for each in gc.get_objects())


async def answer(client: SilentSocket, *, pings: int) -> None:
    """Answers the next pings as they come."""
    seen = len(client.pings)
    last = seen + pings
    while seen < last:
        await wait_until(partial(has_pings, client, seen + 1), what="a ping")
        seen = len(client.pings)
        await client.pong(client.pings[-1])


def has_pings(client: SilentSocket, count: int) -> bool:
    return len(client.pings) >= count


@pytest.mark.parametrize(("opened", "kind"), KINDS)
async def test_it_is_one_task(stores: Stores, origin: str, opened: Open, kind: type) -> None:
    await opened(stores, origin, 20)

    await wait_until(lambda: numerous(20) == {"serve_socket"}, what="one task for each")
    assert held(kind) == 20


async def test_pings_and_pongs_ask_nothing_of_redis(stores: Stores, origin: str, sent: list[Any]) -> None:
    key, secret = await stores.api_key()
    await stores.make_channel(key.id)
    client = await SilentSocket.open(origin, {"Authorization": f"Bearer {secret}"})
    await answer(client, pings=2)
    sent.clear()

    await answer(client, pings=3)

    # The edge itself reads what has changed, twice a second.
    assert [command for command in sent if key.id in str(command)] == []
    await client.close()


@pytest.mark.parametrize(("opened", "kind"), KINDS)
async def test_when_it_has_gone_nothing_of_it_waits_for_the_collector(
    stores: Stores, origin: str, opened: Open, kind: type
) -> None:
    kinds = (kind, DeliveryLoop, SocketProtocol, HttpProtocol, Protocol)
    gc.collect()
    gc.disable()
    try:
        sockets = await opened(stores, origin, 3)
        assert held(kind) == held(SocketProtocol) == 3
        for socket in sockets:
            socket.abort()
        await wait_until(lambda: held(*kinds) == 0, what="nothing left")
    finally:
        gc.enable()
