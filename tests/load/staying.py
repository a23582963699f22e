"""A worker's role: applications that stay connected while their installation is operated.

A socket that is closed, for whatever reason, is opened again at once; a poll that fails is repeated. A *gap*
is the time in which a client had neither: from its close, or its first failed poll, until it is back.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.load.connections import HttpConnection, RawSocket, Refused
from tests.load.latencies import now_us
from tests.load.messages import request
from tests.load.polls import PULL_PATH
from tests.load.recorder import Received, Recorder
from tests.load.sockets import CONNECT_PATH, Endpoint

_RETRY_S = 0.05
_POLL_LIMIT_S = 60
_HANDSHAKE_LIMIT_S = 5


@dataclass(slots=True)
class Stayed:
    """How a worker's clients have fared. The keys of `gaps_us` are channels, those of `refused` causes."""

    gaps_us: dict[int, list[int]] = field(default_factory=dict)
    closes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    away: int = 0


class Staying:
    """A share of the clients: some with sockets, some that poll."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._stayed = Stayed()
        self._away_since_us: dict[int, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._connected: set[int] = set()

    @property
    def received(self) -> int:
        return self._recorder.received

    async def open(self, *, sockets: Sequence[Endpoint], polls: Sequence[Endpoint], within_s: float) -> None:
        """Returns when all are connected. Raises Refused if they are not in time."""
        self._tasks += [asyncio.create_task(self._stay(endpoint)) for endpoint in sockets]
        self._tasks += [asyncio.create_task(self._poll_on(endpoint)) for endpoint in polls]
        give_up_us, clients = now_us() + within_s * 1_000_000, len(sockets) + len(polls)
        while len(self._connected) < clients:
            if now_us() > give_up_us:
                why = self._stayed.refused.most_common(3)
                raise Refused(f"{clients - len(self._connected)} of {clients} clients did not connect: {why}")
            await asyncio.sleep(_RETRY_S)
        self._stayed = Stayed()

    async def stayed(self) -> Stayed:
        """How they fared since all were connected; a client that is away has an open gap."""
        for task in self._tasks:
            if task.done():
                task.result()
        self._stayed.away = len(self._away_since_us)
        return self._stayed

    async def reset(self) -> None:
        self._recorder.reset()

    async def recorded(self) -> Received:
        return self._recorder.recorded()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stay(self, endpoint: Endpoint) -> None:
        while True:
            try:
                async with asyncio.timeout(_HANDSHAKE_LIMIT_S):
                    socket = await self._open(endpoint)
            except (OSError, Refused) as error:
                await self._wait_after(endpoint, f"socket: {cause_of(error)}")
                continue
            self._is_back(endpoint)
            try:
                code = await socket.closed
            finally:
                socket.abort()
                self._closed(endpoint)
            self._stayed.closes[str(code)] += 1
            self._stayed.reconnects += 1
            self._is_away(endpoint)

    async def _open(self, endpoint: Endpoint) -> RawSocket:
        """A socket that receives from now on. Raises OSError or Refused."""
        take = partial(self._recorder.record, endpoint.channel)
        return await RawSocket.open(endpoint.edge, CONNECT_PATH, endpoint.secret, take)

    def _closed(self, endpoint: Endpoint) -> None:
        """The socket gets nothing more. A queue keeps what it has not acked."""

    async def _poll_on(self, endpoint: Endpoint) -> None:
        """Polls for ever: the first with noWait, which creates the channel."""
        connection: HttpConnection | None = None
        query = "?noWait=true"
        while True:
            poll = request("GET", endpoint.edge + PULL_PATH + query, token=endpoint.secret)
            try:
                if connection is None or not connection.open_now:
                    connection = await HttpConnection.open(endpoint.edge)
                reply = await connection.request(poll, within_s=_POLL_LIMIT_S)
            except OSError as error:
                connection = None
                await self._wait_after(endpoint, f"poll: {cause_of(error)}")
                continue
            if reply.status not in (200, 204):
                await self._wait_after(endpoint, f"poll: {reply.status}")
                continue
            if reply.status == 200:
                self._recorder.record(endpoint.channel, reply.body)
            self._is_back(endpoint)
            query = ""

    async def _wait_after(self, endpoint: Endpoint, cause: str) -> None:
        self._stayed.refused[cause] += 1
        self._is_away(endpoint)
        await asyncio.sleep(_RETRY_S)

    def _is_away(self, endpoint: Endpoint) -> None:
        self._away_since_us.setdefault(endpoint.channel, now_us())

    def _is_back(self, endpoint: Endpoint) -> None:
        self._connected.add(endpoint.channel)
        since_us = self._away_since_us.pop(endpoint.channel, None)
        if since_us is not None:
            self._stayed.gaps_us.setdefault(endpoint.channel, []).append(now_us() - since_us)


def cause_of(error: Exception) -> str:
    """A few words, so that alike errors count as one."""
    if isinstance(error, Refused):
        return str(error)[:60]
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__
