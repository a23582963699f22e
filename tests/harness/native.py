"""A client of the native WebSocket on the stock `websockets` library.

async with native_socket(url, token=token) as socket:
    await socket.ask(subscribe={"topic": "news"})
    frame = await socket.next("event")
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.harness.api import SERVER_TEXTS
from tests.harness.noted import note
from tests.harness.waiting import wait_until

NATIVE_PATH = "/v1/socket"
NATIVE = Subprotocol("notify.v1")
Frame = dict[str, Any]


class NativeSocket:
    """One open socket. It reads all the time, except after `pause`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[Frame] = []
        """All that came, in order."""
        self._refs = itertools.count(1)
        self._taken = set[int]()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._may_read.wait()
                text = await self.connection.recv()
                assert isinstance(text, str), "frames are text"
                self.frames.append(json.loads(text))
                note("native", self.frames[-1])
        await self.connection.wait_closed()
        SERVER_TEXTS.append(self.connection.close_reason or "")

    def pause(self) -> None:
        """Stops reading: after a few more frames the kernel's buffers fill."""
        self._may_read.clear()

    def go_on(self) -> None:
        self._may_read.set()

    # Requests

    async def send(self, frame: Any) -> None:
        """A frame as it is: a text, bytes, or what is to be JSON."""
        await self.connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def begin(self, **operation: Any) -> int:
        """Sends a request without waiting for its answer; its ref."""
        ref = next(self._refs)
        await self.send({"ref": ref, **operation})
        return ref

    async def answer(self, ref: int, *, within_s: float = 20) -> Frame:
        """The answer to a request, also if it is an error."""
        await wait_until(
            lambda: self._answers(ref) or self.has_ended,
            within_s=within_s,
            what=lambda: f"the answer {ref}; {self._state()}",
        )
        answers = self._answers(ref)
        assert len(answers) == 1, (answers, self._state())
        return answers[0]

    def _answers(self, ref: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("ref") == ref]

    async def ask(self, **operation: Any) -> Any:
        """Sends a request; what it was answered. An error fails the test."""
        answer = await self.answer(await self.begin(**operation))
        assert "error" not in answer, answer
        [said] = [value for name, value in answer.items() if name != "ref"]
        return said

    async def refused(self, **operation: Any) -> Frame:
        """Sends a request; the error that it was answered."""
        answer = await self.answer(await self.begin(**operation))
        assert "error" in answer, answer
        error: Frame = answer["error"]
        return error

    # What comes without a request

    def of(self, kind: str) -> list[Frame]:
        """All frames with this member that answer no request: `event`, `hello`, `recovered`, …"""
        return [frame for frame in self.frames if kind in frame and "ref" not in frame]

    async def next(self, kind: str = "event", *, within_s: float = 20) -> Frame:
        """The next frame of this kind that was not taken before, in order."""

        def found() -> Frame | None:
            return next((frame for frame in self.of(kind) if id(frame) not in self._taken), None)

        await wait_until(found, within_s=within_s, what=lambda: f"{kind}; {self._state()}")
        frame = found()
        assert frame is not None
        self._taken.add(id(frame))
        return frame

    @property
    def events(self) -> list[Frame]:
        """The CloudEvents that came, of topics and of channels."""
        return [frame["event"] for frame in self.of("event")]

    @property
    def data(self) -> list[Any]:
        return [event.get("data") for event in self.events]

    async def until_data(self, data: list[Any], *, within_s: float = 20) -> None:
        """Exactly these, in this order."""
        await wait_until(lambda: len(self.data) >= len(data), within_s=within_s, what=self._state)
        assert self.data == data

    # Its end

    @property
    def has_ended(self) -> bool:
        return self._reader.done()

    async def closed(self, *, within_s: float = 20) -> tuple[int | None, str]:
        """Waits for the end; the close code (1006: no close frame) and its text."""
        await wait_until(lambda: self.has_ended, within_s=within_s, what=lambda: f"the end; {self._state()}")
        self._reader.result()
        return self.connection.close_code, self.connection.close_reason or ""

    async def close(self) -> None:
        """Closes from the client's side; safe on a closed socket."""
        self.go_on()
        await self.connection.close()
        await asyncio.wait([self._reader])

    async def drop(self) -> None:
        """Aborts without a close frame."""
        self.connection.transport.abort()
        self.go_on()
        await asyncio.wait([self._reader])

    def _state(self) -> str:
        ended = f"closed {self.connection.close_code}" if self.has_ended else "open"
        return f"the socket is {ended}; the last frames are {self.frames[-3:]}"


@contextlib.asynccontextmanager
async def native_socket(
    url: str, *, token: str = "", bearer: str = "", origin: str = "", **options: Any
) -> AsyncIterator[NativeSocket]:
    """A socket whose first frame has come, and which has authenticated by `auth` if a token is given.

    `bearer` is a token, or the secret of an API key, for the handshake.
    """
    socket = await open_native(url, bearer=bearer, origin=origin, **options)
    try:
        await wait_until(lambda: bool(socket.of("hello")) or socket.has_ended, what="hello")
        if token:
            await socket.ask(auth={"token": token})
        yield socket
    finally:
        await socket.close()


async def open_native(url: str, *, bearer: str = "", origin: str = "", **options: Any) -> NativeSocket:
    """The same without waiting for anything. Raises InvalidStatus when the handshake is refused."""
    defaults: dict[str, Any] = {
        "proxy": None,
        "compression": None,
        "open_timeout": 30,
        "max_size": None,
        "subprotocols": [NATIVE],
        "additional_headers": {"Authorization": f"Bearer {bearer}"} if bearer else None,
        "origin": Origin(origin) if origin else None,
    }
    target = url.replace("http://", "ws://", 1) + NATIVE_PATH
    return NativeSocket(await connect(target, **{**defaults, **options}))
