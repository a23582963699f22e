"""A receiver on the stock `websockets` client; records everything it receives."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from tests.harness.api import SERVER_TEXTS, ApiKey
from tests.harness.events import number_of
from tests.harness.noted import note
from tests.harness.waiting import wait_until

CONNECT_PATH = "/v2/notification/websocket-connect"


class WatchedConnection(ClientConnection):
    """The stock connection; counts the text frames before the last ping that it has answered."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.text_frames = 0
        self.confirmed_frames = 0

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame):
            if event.opcode is Opcode.TEXT:
                self.text_frames += 1
            elif event.opcode is Opcode.PING:
                self.confirmed_frames = self.text_frames
        super().process_event(event)


class Receiver:
    """One open socket of an API key. Reads all the time, except after `hold`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, list[Any]]] = []
        self.sizes: list[int] = []
        self.items: list[tuple[str, Any]] = []
        self.numbers: list[int] = []
        self.arrived_at: list[float] = []
        self.closed_at: float | None = None
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, key: ApiKey, *, hold: bool = False, **options: Any) -> Self:
        """Connects with the key in `Authorization`; `options` go to the stock client."""
        options.setdefault("additional_headers", {"Authorization": f"Bearer {key.secret}"})
        return await cls._open(url, hold=hold, options=options)

    @classmethod
    async def open_as(cls, url: str, *subprotocols: str, query: str = "", **options: Any) -> Self:
        """Connects with the key among the subprotocols, as browsers do."""
        offered = [Subprotocol(each) for each in subprotocols]
        options |= {"subprotocols": offered or None}
        return await cls._open(url, hold=False, options=options, query=query)

    @classmethod
    async def _open(cls, url: str, *, hold: bool, options: dict[str, Any], query: str = "") -> Self:
        options = {"proxy": None, "open_timeout": 30, "create_connection": WatchedConnection} | options
        target = url.replace("http://", "ws://", 1) + CONNECT_PATH + query
        connection = await connect(target, **options)
        if connection.response is not None:
            SERVER_TEXTS.append(str(connection.response.headers))
        receiver = cls(connection)
        if hold:
            receiver.hold()
        return receiver

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._may_read.wait()
                self._keep(await self.connection.recv())
        await self.connection.wait_closed()
        self.closed_at = time.monotonic()
        SERVER_TEXTS.append(self.connection.close_reason or "")

    def _keep(self, message: str | bytes) -> None:
        assert isinstance(message, str), "frames are text"
        frame = json.loads(message)
        note("pelion", frame)
        self.frames.append(frame)
        self.sizes.append(len(message.encode()))
        now = time.monotonic()
        for section, items in frame.items():
            for item in items:
                self.items.append((section, item))
                if section == "notifications":
                    self.numbers.append(number_of(item))
                    self.arrived_at.append(now)

    def hold(self) -> None:
        """Stops reading: after at most one more frame the kernel's buffers fill."""
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    @property
    def open_now(self) -> bool:
        return not self._reader.done()

    @property
    def acked_until(self) -> int:
        """The number of notifications before the last ping that the client has answered."""
        assert isinstance(self.connection, WatchedConnection)
        frames = self.frames[: self.connection.confirmed_frames]
        return sum(len(frame.get("notifications", ())) for frame in frames)

    async def received(self, count: int, *, within_s: float = 30) -> list[tuple[str, Any]]:
        """Waits for at least `count` items of any section; returns all."""
        await wait_until(lambda: len(self.items) >= count, within_s=within_s, what=lambda: self._state(count))
        return self.items

    async def received_numbers(self, expected: Iterable[int], *, within_s: float = 30) -> None:
        """Waits for exactly these numbers in this order."""
        wanted = list(expected)
        await self.received(len(wanted), within_s=within_s)
        assert self.numbers == wanted, _difference(wanted, self.numbers)

    async def closed(self, *, within_s: float = 20) -> int | None:
        """Waits for the end; returns the close code (1006: no close frame)."""
        await wait_until(lambda: self._reader.done(), within_s=within_s, what="the end of the socket")
        self._reader.result()
        return self.connection.close_code

    async def close(self) -> None:
        """Closes from the client's side; safe on a closed socket."""
        self.resume()
        await self.connection.close()
        await asyncio.wait([self._reader])

    async def drop(self) -> None:
        """Aborts without a close frame; the kernel sends a reset."""
        self.connection.transport.abort()
        self.resume()
        await asyncio.wait([self._reader])

    def _state(self, count: int) -> str:
        state = "open" if self.open_now else f"closed {self.connection.close_code}"
        return f"{count} items; {len(self.items)} have arrived, the socket is {state}"


def in_arrival_order(receivers: Sequence[Receiver]) -> list[int]:
    """The numbers of several sockets, one socket after the other."""
    return [number for receiver in receivers for number in receiver.numbers]


def assert_nothing_lost(sent: Iterable[int], received: Iterable[int]) -> None:
    here = set(received)
    missing = [number for number in sent if number not in here]
    assert not missing, f"lost {len(missing)}, first {missing[:20]}"


def assert_in_order(received: Sequence[int]) -> None:
    """The first arrivals ascend."""
    first_times = list(dict.fromkeys(received))
    wrong = [(a, b) for a, b in itertools.pairwise(first_times) if b < a]
    assert not wrong, f"out of order in {len(wrong)} places, first {wrong[:10]}"


def assert_consecutive(received: Sequence[int]) -> None:
    """No gap, no repetition."""
    wrong = [(a, b) for a, b in itertools.pairwise(received) if b != a + 1]
    assert not wrong, f"not consecutive in {len(wrong)} places, first {wrong[:10]}"


def _difference(wanted: list[int], got: list[int]) -> str:
    index = next((n for n, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), len(wanted))
    return f"differ at {index}: expected {wanted[index : index + 5]}, got {got[index : index + 5]}"
