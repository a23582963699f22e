"""A worker's role: clients that long-poll, one request after the other."""

import asyncio
from collections.abc import Sequence

from tests.load.connections import HttpConnection, Refused
from tests.load.messages import request
from tests.load.recorder import Received, Recorder
from tests.load.sockets import Endpoint

PULL_PATH = "/v2/notification/pull"
_RETRY_S = 0.2
# Longer than the edge holds a poll.
_RESPONSE_LIMIT_S = 60
_CONFLICT, _UNAVAILABLE = 409, 503


class Polls:
    """Each client polls again as soon as it has a response."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._tasks: list[asyncio.Task[None]] = []
        self._connections: dict[int, HttpConnection] = {}

    @property
    def received(self) -> int:
        return self._recorder.received

    async def open(self, *, endpoints: Sequence[Endpoint]) -> None:
        """Creates the channels by a first poll each, and continues to poll."""
        for endpoint in endpoints:
            await self._poll(endpoint, "?noWait=true")
        self._tasks += [asyncio.create_task(self._poll_forever(endpoint)) for endpoint in endpoints]

    async def _poll_forever(self, endpoint: Endpoint) -> None:
        while True:
            try:
                await self._poll(endpoint, "")
            except OSError:
                await asyncio.sleep(_RETRY_S)

    async def _poll(self, endpoint: Endpoint, query: str) -> None:
        connection = self._connections.get(endpoint.channel)
        if connection is None or not connection.open_now:
            connection = self._connections[endpoint.channel] = await HttpConnection.open(endpoint.edge)
        poll = request("GET", endpoint.edge + PULL_PATH + query, token=endpoint.secret)
        reply = await connection.request(poll, within_s=_RESPONSE_LIMIT_S)
        if reply.status == 200:
            self._recorder.record(endpoint.channel, reply.body)
        elif reply.status in (_CONFLICT, _UNAVAILABLE):
            await asyncio.sleep(_RETRY_S)
        elif reply.status != 204:
            raise Refused(f"a poll was refused: {reply.status} {reply.body[:300]!r}")

    async def reset(self) -> None:
        self._recorder.reset()

    async def recorded(self) -> Received:
        for task in self._tasks:
            if task.done():
                task.result()
        return self._recorder.recorded()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._connections.values():
            connection.close()
