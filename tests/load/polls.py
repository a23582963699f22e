"""A worker's role: applications that poll, one request after the other."""

import asyncio
from collections.abc import Sequence

from tests.load.book import Book, Told
from tests.load.messages import request
from tests.load.sockets import Seat
from tests.load.wire import HttpConnection, Refused

PULL_PATH = "/v2/notification/pull"
_RETRY_S = 0.2
# Longer than a poll is held.
_ANSWER_LIMIT_S = 60
_CONFLICT, _AWAY = 409, 503


class Polls:
    """Each polls again as soon as it is answered."""

    def __init__(self) -> None:
        self._book = Book()
        self._tasks: list[asyncio.Task[None]] = []
        self._connections: dict[int, HttpConnection] = {}

    @property
    def received(self) -> int:
        return self._book.received

    async def open(self, *, seats: Sequence[Seat]) -> None:
        """Makes the channels, by a first poll each, and goes on polling."""
        for seat in seats:
            await self._poll(seat, "?noWait=true")
        self._tasks += [asyncio.create_task(self._go_on(seat)) for seat in seats]

    async def _go_on(self, seat: Seat) -> None:
        while True:
            try:
                await self._poll(seat, "")
            except OSError:
                await asyncio.sleep(_RETRY_S)

    async def _poll(self, seat: Seat, query: str) -> None:
        connection = self._connections.get(seat.channel)
        if connection is None or not connection.open_now:
            connection = self._connections[seat.channel] = await HttpConnection.open(seat.edge)
        asked = request("GET", seat.edge + PULL_PATH + query, token=seat.secret)
        reply = await connection.ask(asked, within_s=_ANSWER_LIMIT_S)
        if reply.status == 200:
            self._book.take(seat.channel, reply.body)
        elif reply.status in (_CONFLICT, _AWAY):
            await asyncio.sleep(_RETRY_S)
        elif reply.status != 204:
            raise Refused(f"a poll was refused: {reply.status} {reply.body[:300]!r}")

    async def turn_page(self) -> None:
        self._book.turn_page()

    async def told(self) -> Told:
        for task in self._tasks:
            if task.done():
                task.result()
        return self._book.told()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._connections.values():
            connection.close()
