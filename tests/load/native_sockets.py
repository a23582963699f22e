"""A worker's role: sockets of `notify.v1`, each the owner of a durable channel, which it acks by frame."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.connections import RawSocket, Refused, bearer
from tests.load.native_publishers import PATH
from tests.load.recorder import Received, Recorder

# Lane, number and time of sending of an event, and where its channel has it. Parsing all of it would cost
# more than the measured services do.
_PATH = re.compile(rb'"path": ?"/(\d+)/(\d+)/(\d+)"')
_ENTRY = re.compile(rb'\{"channel":"([^"]+)","entry":"([0-9-]+)",')
_OPEN_LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class Owner:
    """Which channel a socket opens, at which edge, and the secret of who may."""

    number: int
    edge: str
    channel: str
    secret: str = field(repr=False)


class OwnedChannel:
    """One socket. It acks once for all that a turn of the event loop has brought."""

    def __init__(self, owner: Owner, recorder: Recorder) -> None:
        loop = asyncio.get_running_loop()
        self._owner, self._recorder, self._loop = owner, recorder, loop
        self._opened: asyncio.Future[None] = loop.create_future()
        self._socket: RawSocket | None = None
        self._entry = b""

    async def open(self) -> "asyncio.Future[int]":
        """Returns when the channel is this socket's, with the future of its close code. Raises Refused."""
        headers = {**bearer(self._owner.secret), "Sec-WebSocket-Protocol": "notify.v1"}
        self._socket = await RawSocket.open(self._owner.edge, PATH, headers, self._take)
        self._socket.send_text(b'{"ref":1,"open":{"channel":"%b"}}' % self._owner.channel.encode())
        async with asyncio.timeout(_OPEN_LIMIT_S):
            await self._opened
        return self._socket.closed

    def abort(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def _take(self, message: bytes) -> None:
        found = _ENTRY.match(message)
        if found is None:
            self._take_other(message)
            return
        path = _PATH.search(message)
        if path is None:
            self._recorder.garbled += 1
            return
        lane, number, sent_us = path.groups()
        self._recorder.take(self._owner.number, [(int(lane), int(number), int(sent_us))])
        self._recorder.bytes += len(message)
        if not self._entry:
            self._loop.call_soon(self._ack)
        self._entry = found[2]

    def _ack(self) -> None:
        if self._socket is not None:
            ack = (self._owner.channel.encode(), self._entry)
            self._socket.send_text(b'{"ack":{"channel":"%b","entry":"%b"}}' % ack)
        self._entry = b""

    def _take_other(self, message: bytes) -> None:
        if self._opened.done():
            # An error of an ack, or the channel is taken: the events that are missing count as lost.
            self._recorder.garbled += b'"error"' in message
        elif b'"opened"' in message:
            self._opened.set_result(None)
        elif b'"error"' in message:
            self._opened.set_exception(Refused(message.decode()))


class NativeSockets:
    """A share of a run's sockets."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._open: list[OwnedChannel] = []
        self._closed: Counter[int] = Counter()
        self._is_leaving = False

    @property
    def received(self) -> int:
        return self._recorder.received

    async def open(self, *, owners: Sequence[Owner], at_once: int) -> None:
        limit = asyncio.Semaphore(at_once)

        async def one(owner: Owner) -> None:
            channel = OwnedChannel(owner, self._recorder)
            self._open.append(channel)
            async with limit:
                (await channel.open()).add_done_callback(self._count_close)

        await asyncio.gather(*(one(owner) for owner in owners))

    async def reset(self) -> None:
        self._recorder.reset()

    async def recorded(self) -> Received:
        recorded = self._recorder.recorded()
        recorded.closed = {str(code): count for code, count in self._closed.items()}
        return recorded

    async def close(self) -> None:
        self._is_leaving = True
        for channel in self._open:
            channel.abort()

    def _count_close(self, code: "asyncio.Future[int]") -> None:
        if not self._is_leaving:
            self._closed[code.result()] += 1
