"""A leased socket on fakeredis: its client lists what was sent, and the test decides its time."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Message, Scope

from services import composition
from services.socket_edge.edge import Edge
from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.spare_pings import SparePings
from shared.delivery.acks import AckScheduler
from shared.model.events import Notification
from shared.native_tokens import NativeTokens
from shared.publish.publisher import Publisher
from shared.publish.publishing import Publishing
from shared.publish.stores import PublishStores
from shared.runtime.settings import Settings
from shared.runtime.websocket.control import Control
from shared.store.leases import Claimed
from shared.store.quotas import AccountQuotas
from shared.store.replicas import Heartbeat
from shared.store.tickets import Tickets
from shared.tokens import Principals
from tests.harness.written import texts_in
from tests.store.stores import EDGE, Stores

KIB = 1024
# Much longer than any test takes, so that what is quick is quick on any machine.
PING_TIMEOUT_S = 3000.0
PING_INTERVAL_S = 20.0
LONG_S = 3600.0
SETTINGS = {
    "frame_limit_bytes": 48 * KIB,
    "batch_limit": 100,
    "in_flight_limit": 2560,
    "in_flight_bytes": 16384 * KIB,
    "ping_timeout_s": PING_TIMEOUT_S,
    "ping_interval_s": PING_INTERVAL_S,
    "heartbeat_s": LONG_S,
    "heartbeat_ttl_s": 2 * LONG_S,
    "redis_outage_limit_s": LONG_S,
    "long_poll_wait_s": LONG_S,
    "blackhole_idle_s": LONG_S,
    "replica": "edge",
}


def edge_of(stores: Stores, **settings: Any) -> Edge:
    """An edge in this process, none of whose loops run yet."""
    its_stores = cast(
        composition.Stores,
        SimpleNamespace(
            redis=stores.redis,
            api_keys=stores.api_keys,
            channels=stores.channels,
            account_channels=stores.account_channels,
            leases=stores.leases,
            queues=stores.queues,
            wakeups=stores.wakeups,
            native_tokens=NativeTokens(stores.token_keys),
            principals=Principals(stores.api_keys),
            tickets=Tickets(stores.calls),
            sessions=stores.sessions,
            routing=stores.routing,
            streams=stores.streams,
            stream_reads=stores.stream_reads,
            quotas=AccountQuotas(stores.calls),
            heartbeat=Heartbeat(stores.calls, instance=EDGE, ttl_ms=1000),
            instance=EDGE,
        ),
    )
    publisher = Publisher(PublishStores(stores.routing, stores.queues, stores.sessions, stores.receipts))
    publishing = cast(Publishing, SimpleNamespace(publisher=publisher))
    edge = Edge(its_stores, Settings.model_validate({**SETTINGS, **settings}), publishing=publishing)
    edge.acks = AckScheduler(every_s=0)
    edge.ping_spacing_s = 0
    # As an edge that sends many.
    edge.spare_pings = SparePings(burst=0)
    return edge


def scope_of(
    write: Callable[[Sequence[bytes], bytes | None], None],
    *,
    unread_bytes: Callable[[], int] = lambda: 0,
) -> Scope:
    """The scope of a WebSocket, as far as a socket needs it."""
    control: Control = {
        "unread_bytes": unread_bytes,
        "last_ping_s": lambda: 0.0,
        "write": write,
        "hear_pongs": lambda _: None,
        "hear_control_frames": lambda _: None,
        "hear_messages": lambda *_: None,
        "hold_messages": lambda _: None,
        "write_encoded": lambda frames: write(texts_in(frames), None),
        "buffered_bytes": lambda: 0,
        "hear_room": lambda _: None,
    }
    return {"extensions": {"websocket.control": control}}


class Clock:
    """The event loop's time, which a test can advance."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ahead_s = 0.0
        self._time = loop.time
        loop.time = self.now_s  # type: ignore[method-assign]

    def now_s(self) -> float:
        return self._time() + self.ahead_s


class Client:
    """The other side of one socket: everything sent to it, and its pongs."""

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self.stores = stores
        self.clock = clock
        self.sent: list[Message] = []
        self.gone = False
        self.unread_bytes = 0
        self.edge: Edge
        self.socket: LeasedSocket

    async def opens(self, channel: str, owner: str = f"{EDGE}/1", **settings: Any) -> LeasedSocket:
        """Claims the channel."""
        return self.holds(await self.stores.leases.claim(channel, owner=owner), **settings)

    def holds(self, claimed: Claimed, **settings: Any) -> LeasedSocket:
        self.edge = edge_of(self.stores, **settings)
        scope = scope_of(write=self._read, unread_bytes=lambda: self.unread_bytes)
        self.socket = LeasedSocket(self.edge, claimed, scope=scope, send=self._receive)
        self.socket.is_held = True
        self.edge.liveness.watch(self.socket)
        return self.socket

    async def _receive(self, message: Message) -> None:
        if self.gone:
            raise OSError("the client has gone")
        self.sent.append(message)

    def _read(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        if self.gone:
            raise OSError("the client has gone")
        self.sent += [{"type": "websocket.send", "utf8": text} for text in texts]
        if ping is not None:
            self.sent.append({"type": "websocket.ping", "bytes": ping})

    @property
    def kinds(self) -> list[str]:
        return [str(message["type"]).removeprefix("websocket.") for message in self.sent]

    @property
    def frames(self) -> list[bytes]:
        return [message["utf8"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def pings(self) -> list[bytes]:
        return [message["bytes"] for message in self.sent if message["type"] == "websocket.ping"]

    async def pong(self, number: int = -1) -> None:
        """Sends the pong to one of the pings, by default the newest."""
        self.socket.on_pong(self.pings[number])


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def channel(stores: Stores) -> str:
    return await stores.channel()


@pytest.fixture
async def client(stores: Stores, clock: Clock, channel: str) -> AsyncIterator[Client]:
    """A client whose socket is open."""
    client = Client(stores, clock)
    await client.opens(channel)
    yield client
    await client.socket.loop.stop()


def pending(*numbers: int, size_bytes: int = 1, topic: str = "device.registrations") -> list[Notification]:
    """Notifications with the entry ids 1-0, 2-0, …, whose items are about that long."""
    data = b'"' + b"x" * max(size_bytes - 2, 0) + b'"'
    return [Notification(entry_id=f"{n}-0", event_id=str(n), topic=topic, data=data) for n in numbers]


class LongestTurn:
    """The longest turn of the event loop, in CPU time: other work on the machine does not count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last_s = time.thread_time()
        self._turn()

    def _turn(self) -> None:
        now_s = time.thread_time()
        self.seconds = max(self.seconds, now_s - self._last_s)
        self._last_s = now_s
        self._next = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._next.cancel()


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """It takes its time from any turn, whatever that does."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
