"""A worker's role: holds many sockets, and receives what comes on them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.load.book import Book, Told
from tests.load.latencies import Latencies, now_us
from tests.load.wire import RawSocket, Refused

CONNECT_PATH = "/v2/notification/websocket-connect"
_RETRY_S = 0.2
_RETRY_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Seat:
    """A channel's socket: where, and by which secret."""

    channel: int
    edge: str
    secret: str = field(repr=False)


@dataclass(slots=True)
class Opened:
    """How opening went. `took` is from each socket's first try to its upgrade."""

    took: Latencies = field(default_factory=Latencies)
    retries: int = 0
    last_us: int = 0


class Sockets:
    """Some of the sockets of a run, at most one to a channel but during a takeover."""

    def __init__(self) -> None:
        self._book = Book()
        self._open: dict[int, RawSocket] = {}
        self._closed: Counter[int] = Counter()
        self._leaving: set[RawSocket] = set()

    @property
    def received(self) -> int:
        return self._book.received

    async def open(self, *, seats: Sequence[Seat], at_once: int, rate: float | None = None) -> Opened:
        """Opens all, at most `at_once` in progress, begun at `rate` a second. Who is refused tries again."""
        told = Opened()
        room = asyncio.Semaphore(at_once)
        begin_us = now_us()

        async def one(number: int, seat: Seat) -> None:
            if rate is not None:
                await asyncio.sleep(max(0.0, begin_us / 1e6 + number / rate - now_us() / 1e6))
            async with room:
                await self._seat(seat, told)

        await asyncio.gather(*(one(number, seat) for number, seat in enumerate(seats)))
        told.last_us = now_us()
        return told

    async def _seat(self, seat: Seat, told: Opened) -> None:
        begin_us = now_us()
        while True:
            try:
                take = partial(self._book.take, seat.channel)
                socket = await RawSocket.open(seat.edge, CONNECT_PATH, seat.secret, take)
                break
            except (OSError, Refused):
                if now_us() - begin_us > _RETRY_LIMIT_S * 1_000_000:
                    raise
                told.retries += 1
                await asyncio.sleep(_RETRY_S)
        at_us = now_us()
        told.took.add(at_us - begin_us, at_us=at_us)
        self._open[seat.channel] = socket
        socket.closed.add_done_callback(partial(self._note_closed, socket))

    async def take_over(self, *, seat: Seat) -> int:
        """Opens a second socket for the channel; µs from that until the first has been told to close."""
        older = self._open[seat.channel]
        self._leaving.add(older)
        begin_us = now_us()
        await self._seat(seat, Opened())
        await asyncio.wait_for(asyncio.shield(older.closed), _RETRY_LIMIT_S)
        return now_us() - begin_us

    async def drop_all(self) -> int:
        """Cuts every socket as a crash does; how many there were."""
        dropped = list(self._open.values())
        self._leaving.update(dropped)
        self._open.clear()
        for socket in dropped:
            socket.abort()
        return len(dropped)

    async def turn_page(self) -> None:
        self._book.turn_page()

    async def told(self) -> Told:
        told = self._book.told()
        told.closed = dict(self._closed)
        return told

    async def close(self) -> None:
        await self.drop_all()

    def _note_closed(self, socket: RawSocket, code: "asyncio.Future[int]") -> None:
        """Only the closes that nobody asked for are told."""
        if socket in self._leaving:
            self._leaving.discard(socket)
        else:
            self._closed[code.result()] += 1
