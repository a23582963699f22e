"""A worker's role: publishers that keep a socket of `notify.v1`, with one request in progress or many."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import orjson

from tests.load.connections import RawSocket, Refused, bearer
from tests.load.messages import Target, Template
from tests.load.publishers import Lane, Published, Publishers

PATH = "/v1/socket"
_ANSWER_LIMIT_S = 30


class Socket:
    """One open socket, which finds the request of each answer."""

    def __init__(self) -> None:
        self._refs = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._socket: RawSocket | None = None

    async def open(self, url: str, secret: str) -> None:
        headers = {**bearer(secret), "Sec-WebSocket-Protocol": "notify.v1"}
        self._socket = await RawSocket.open(url, PATH, headers, self._take)
        self._socket.closed.add_done_callback(self._on_closed)

    async def publish(self, events: Sequence[bytes]) -> Any:
        """What each event was answered. Raises Refused, and OSError if the socket ends before."""
        assert self._socket is not None
        ref = next(self._refs)
        answer = self._asked[ref] = asyncio.get_running_loop().create_future()
        self._socket.send_text(b'{"ref":%d,"publish":{"events":[%b]}}' % (ref, b",".join(events)))
        async with asyncio.timeout(_ANSWER_LIMIT_S):
            frame = await answer
        if "published" not in frame:
            raise Refused(f"publishing was refused: {frame}")
        return frame["published"]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def _take(self, message: bytes) -> None:
        frame = orjson.loads(message)
        answer = self._asked.pop(frame.get("ref", 0), None)
        if answer is not None and not answer.done():
            answer.set_result(frame)

    def _on_closed(self, code: "asyncio.Future[int]") -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(f"closed with {code.result()} before the answer"))


class NativeLane(Lane):
    """A socket for each secret. Its requests are carried out in the order in which they are sent."""

    def __init__(
        self,
        number: int,
        url: str,
        heads: Sequence[bytes],
        targets: Sequence[Target],
        templates: Sequence[Template],
    ) -> None:
        super().__init__(number, url, heads, targets, templates)
        self._sockets: dict[bytes, Socket] = {}

    @staticmethod
    def heads_for(url: str, secret: str, targets: Sequence[Target]) -> list[bytes]:
        return [(target.secret or secret).encode() for target in targets]

    async def connect(self) -> None:
        for secret in dict.fromkeys(self._heads):
            socket = self._sockets[secret] = Socket()
            await socket.open(self._url, secret.decode())

    async def _publish(self, head: bytes, events: Sequence[bytes], result: Published) -> Any:
        return await self._sockets[head].publish(events)

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()


class NativePublishers(Publishers):
    """A share of a run's lanes, each with a socket of its own."""

    def __init__(self) -> None:
        super().__init__(NativeLane)
