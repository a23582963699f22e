"""A hold on fakeredis whose client is a list of what was sent, and whose time the test decides."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import fakeredis
import pytest
from starlette.types import Message

from services.socket_edge.leased_socket import LeasedSocket, Limits
from services.socket_edge.liveness import Liveness
from shared.delivery.loop import AckScheduler
from shared.model.events import Notification
from shared.store.leases import Claimed
from tests.store.stores import EDGE, Stores, fake_backend

KIB = 1024
# Long against anything that a test can take: what is quick is quick on any machine.
PING_TIMEOUT_S = 3000.0
PING_INTERVAL_S = 20.0
LIMITS = Limits(
    frame_bytes=48 * KIB,
    frame_count=100,
    in_flight_count=2560,
    in_flight_bytes=16384 * KIB,
    ping_timeout_s=PING_TIMEOUT_S,
)


class Clock:
    """The loop's own time, which can be put forward."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ahead_s = 0.0
        self._time = loop.time
        loop.time = self.now_s  # type: ignore[method-assign]

    def now_s(self) -> float:
        return self._time() + self.ahead_s


class Client:
    """The other side of one hold: everything sent to it, and the pongs it answers."""

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self.stores = stores
        self.clock = clock
        self.sent: list[Message] = []
        self.gone = False
        self.unread_bytes = 0
        self.liveness = Liveness(ping_interval_s=PING_INTERVAL_S, ping_timeout_s=PING_TIMEOUT_S)
        self.hold: LeasedSocket

    async def opens(self, channel: str, owner: str = f"{EDGE}/1", **options: Any) -> LeasedSocket:
        """Claims the channel; `limits` and `close_codes` as given, or as in `LIMITS` and 2019."""
        return self.holds(await self.stores.leases.claim(channel, owner=owner), **options)

    def holds(self, claimed: Claimed, *, limits: Limits = LIMITS, close_codes: int = 2019) -> LeasedSocket:
        self.hold = LeasedSocket(
            claimed,
            send=self._receive,
            control={
                "unread_bytes": lambda: self.unread_bytes,
                "last_ping_s": lambda: 0.0,
                "write": self._read,
                "hear_pongs": lambda _: None,
            },
            queues=self.stores.queues,
            leases=self.stores.leases,
            acks=AckScheduler(every_s=0),
            limits=limits,
            liveness=self.liveness,
            year=close_codes,
        )
        self.hold.is_held = True
        self.liveness.watch(self.hold)
        return self.hold

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

    async def answers(self, number: int = -1) -> None:
        """The pong to one of the pings, the newest if none is named."""
        self.hold.on_pong(self.pings[number])


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    backend = fake_backend(fakeredis.FakeServer())
    async with backend.connect() as redis:
        yield Stores(redis, backend)


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def channel(stores: Stores) -> str:
    return await stores.channel()


@pytest.fixture
async def client(stores: Stores, clock: Clock, channel: str) -> AsyncIterator[Client]:
    """A client whose hold is open."""
    client = Client(stores, clock)
    await client.opens(channel)
    yield client
    await client.hold.loop.stop()


def pending(*numbers: int, size_bytes: int = 1, topic: str = "device.registrations") -> list[Notification]:
    """Notifications at the places 1-0, 2-0, …, whose items are about that long."""
    data = b'"' + b"x" * max(size_bytes - 2, 0) + b'"'
    return [Notification(entry_id=f"{n}-0", event_id=str(n), topic=topic, data=data) for n in numbers]
