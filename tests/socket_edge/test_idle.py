"""What an idle socket costs its edge: one task, no Redis command, and nothing once it has gone."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import pytest
from websockets.protocol import Protocol

from services.socket_edge import sweep as sweep_module
from services.socket_edge.app import edge_app
from services.socket_edge.edge import Edge, Timing
from services.socket_edge.edge import Stores as EdgeStores
from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.session_socket import SessionLimits
from shared.delivery.loop import DeliveryLoop
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.runtime.http.protocol import HttpProtocol
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.server import listener, serve
from shared.runtime.websocket.protocol import SocketProtocol
from shared.store.replicas import Heartbeat
from shared.tokens import Principals
from tests.harness.raw import SilentSocket
from tests.harness.waiting import wait_until
from tests.load.sockets import CONNECT_PATH
from tests.load.wire import RawSocket
from tests.socket_edge.conftest import LIMITS
from tests.store.stores import EDGE, Stores

LONG_S = 3600.0
TIMING = Timing(
    ping_interval_s=0.05, heartbeat_s=LONG_S, redis_outage_limit_s=LONG_S, long_poll_wait_s=LONG_S
)
SESSION_LIMITS = SessionLimits(
    idle_s=LONG_S,
    most_per_address=None,
    destination="edge",
    trusted_proxies=(),
)


@pytest.fixture
async def origin(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Where an edge answers that runs within this process."""
    monkeypatch.setattr(sweep_module, "SWEEP_S", LONG_S)
    edge = Edge(
        EdgeStores(
            redis=stores.redis,
            api_keys=stores.api_keys,
            channels=stores.channels,
            leases=stores.leases,
            queues=stores.queues,
            wakeups=stores.wakeups,
            principals=Principals(stores.api_keys),
            sessions=stores.sessions,
        ),
        Heartbeat(stores.calls, instance=EDGE, ttl_ms=1000),
        instance=EDGE,
        limits=LIMITS,
        timing=TIMING,
        session_limits=SESSION_LIMITS,
        close_codes=2019,
    )
    listening = listener("127.0.0.1", 0)
    started, stop = asyncio.Event(), asyncio.Event()
    app = RequestLog(edge_app(edge, health=[]), count=lambda method, status: None)
    async with edge.running():
        serving = asyncio.create_task(
            serve(app, listening, stop=stop, on_shutdown=edge.shutdown, started=started.set)
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


async def opened(stores: Stores, origin: str, count: int) -> list[RawSocket]:
    """Sockets that answer pings, and have no task in this process."""
    sockets = []
    for _ in range(count):
        key, secret = await stores.api_key()
        await stores.make_channel(key.id)
        sockets.append(await RawSocket.open(origin, CONNECT_PATH, secret, lambda _: None))
    return sockets


def numerous(count: int) -> set[str]:
    """What at least so many tasks do."""
    names = Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]
    return {name for name, found in names.items() if found >= count}


def held(*kinds: type) -> int:
    """How many of these there are."""
    return sum(isinstance(each, kinds) for each in gc.get_objects())


async def answer(client: SilentSocket, *, pings: int) -> None:
    """The next ones, as they come."""
    seen = len(client.pings)
    last = seen + pings
    while seen < last:
        await wait_until(partial(has_pings, client, seen + 1), what="a ping")
        seen = len(client.pings)
        await client.pong(client.pings[-1])


def has_pings(client: SilentSocket, count: int) -> bool:
    return len(client.pings) >= count


async def test_it_is_one_task(stores: Stores, origin: str) -> None:
    await opened(stores, origin, 20)

    await wait_until(lambda: numerous(20) == {"pelion_socket"}, what="one task for each")


async def test_pings_and_pongs_ask_nothing_of_redis(stores: Stores, origin: str, sent: list[Any]) -> None:
    key, secret = await stores.api_key()
    await stores.make_channel(key.id)
    client = await SilentSocket.open(origin, {"Authorization": f"Bearer {secret}"})
    await answer(client, pings=2)
    sent.clear()

    await answer(client, pings=3)

    assert sent == []
    await client.close()


async def test_when_it_has_gone_nothing_of_it_waits_for_the_collector(stores: Stores, origin: str) -> None:
    kinds = (LeasedSocket, DeliveryLoop, SocketProtocol, HttpProtocol, Protocol)
    gc.collect()
    gc.disable()
    try:
        sockets = await opened(stores, origin, 3)
        assert held(LeasedSocket) == held(SocketProtocol) == 3
        for socket in sockets:
            socket.abort()
        await wait_until(lambda: held(*kinds) == 0, what="nothing left")
    finally:
        gc.enable()
