"""A worker's role: opens many sockets and receives from them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.load.connections import RawSocket, Refused
from tests.load.latencies import Latencies, now_us
from tests.load.recorder import Received, Recorder

CONNECT_PATH = "/v2/notification/websocket-connect"
_RETRY_S = 0.2
_RETRY_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a channel's socket connects, and its secret."""

    channel: int
    edge: str
    secret: str = field(repr=False)
    dialect: str = "pelion"
    key: str = ""
    """The API key's id, which is half of a Cognism client's credentials."""


@dataclass(slots=True)
class Opened:
    """The result of opening sockets. `took`: from a socket's first attempt to its upgrade."""

    took: Latencies = field(default_factory=Latencies)
    retries: int = 0
    last_us: int = 0


class Sockets:
    """A share of a run's sockets, one per channel (two during a takeover)."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._open: dict[int, RawSocket] = {}
        self._closed: Counter[int] = Counter()
        self._leaving: set[RawSocket] = set()

    @property
    def received(self) -> int:
        return self._recorder.received

    async def open(self, *, endpoints: Sequence[Endpoint], at_once: int, rate: float | None = None) -> Opened:
        """Opens all, at most `at_once` handshakes in progress, `rate` per second; retries refused ones."""
        opened = Opened()
        limit = asyncio.Semaphore(at_once)
        begin_us = now_us()

        async def one(number: int, endpoint: Endpoint) -> None:
            if rate is not None:
                await asyncio.sleep(max(0.0, begin_us / 1e6 + number / rate - now_us() / 1e6))
            async with limit:
                await self._connect(endpoint, opened)

        await asyncio.gather(*(one(number, endpoint) for number, endpoint in enumerate(endpoints)))
        opened.last_us = now_us()
        return opened

    async def _connect(self, endpoint: Endpoint, opened: Opened) -> None:
        begin_us = now_us()
        while True:
            try:
                take = partial(self._recorder.record, endpoint.channel)
                socket = await RawSocket.open(endpoint.edge, CONNECT_PATH, endpoint.secret, take)
                break
            except (OSError, Refused):
                if now_us() - begin_us > _RETRY_LIMIT_S * 1_000_000:
                    raise
                opened.retries += 1
                await asyncio.sleep(_RETRY_S)
        at_us = now_us()
        opened.took.add(at_us - begin_us, at_us=at_us)
        self._open[endpoint.channel] = socket
        socket.closed.add_done_callback(partial(self._count_close, socket))

    async def take_over(self, *, endpoint: Endpoint) -> int:
        """Opens a second socket for the channel; returns µs until the first one is closed."""
        older = self._open[endpoint.channel]
        self._leaving.add(older)
        begin_us = now_us()
        await self._connect(endpoint, Opened())
        await asyncio.wait_for(asyncio.shield(older.closed), _RETRY_LIMIT_S)
        return now_us() - begin_us

    async def drop_all(self) -> int:
        """Aborts every socket without a close frame; returns their number."""
        dropped = list(self._open.values())
        self._leaving.update(dropped)
        self._open.clear()
        for socket in dropped:
            socket.abort()
        return len(dropped)

    async def reset(self) -> None:
        self._recorder.reset()

    async def recorded(self) -> Received:
        recorded = self._recorder.recorded()
        recorded.closed = {str(code): count for code, count in self._closed.items()}
        return recorded

    async def close(self) -> None:
        await self.drop_all()

    def _count_close(self, socket: RawSocket, code: "asyncio.Future[int]") -> None:
        """Counts only closes by the server."""
        if socket in self._leaving:
            self._leaving.discard(socket)
        else:
            self._closed[code.result()] += 1
