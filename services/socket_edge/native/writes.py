"""What a native socket writes, what waits for its client to read, and its last frame."""

import asyncio
import contextlib
from abc import abstractmethod
from typing import TYPE_CHECKING

from starlette.types import Scope, Send

from services.socket_edge.held import HeldSocket
from shared import telemetry
from shared.model.channels import CloseReason
from shared.runtime.websocket.control import Control
from shared.runtime.websocket.frames import encoded

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

NATIVE = "native"
# Of a close frame, without the code.
_MOST_TEXT_BYTES = 123
# A client that has not read the rest of it by then is disconnected.
_ENDING_S = 30.0
# Below it a transport says nothing when it has room.
_LITTLE_BYTES = 64 * 1024
_ROOM_S = 0.05
_FRAMES = telemetry.frames.series({"dialect": NATIVE})


class WrittenSocket(HeldSocket):
    """A socket whose buffer is bounded by those who write to it."""

    kind = NATIVE
    _dialect = "native"

    def __init__(self, edge: "Edge", id: str, *, scope: Scope, send: Send) -> None:
        super().__init__(edge, id, scope=scope, send=send)
        self.written_bytes = 0
        """Of frames. Pings are not counted."""
        self._sent = 0
        # Too much waits, and no request is read; it ends, and nothing is written any more.
        self._is_clogged = self._is_ending = False
        self._room: asyncio.Future[None] | None = None
        self._close_text = ""
        self._closing: asyncio.Task[None] | None = None
        control: Control = scope["extensions"]["websocket.control"]
        self._write_encoded, self._buffered_bytes = control["write_encoded"], control["buffered_bytes"]
        control["hear_room"](self._on_room)

    @property
    def edge(self) -> "Edge":
        return self._edge

    @property
    @abstractmethod
    def is_stranger(self) -> bool:
        """Whether it has not authenticated."""

    @abstractmethod
    def _plan_reading(self) -> None:
        """Reads on, unless too much waits."""

    @property
    def is_writable(self) -> bool:
        return self.is_held and self.close_reason is None and not self._is_ending

    def buffered_bytes(self) -> int:
        """What the kernel has not taken."""
        return self._buffered_bytes()

    def write(self, *texts: bytes) -> bool:
        """Writes frames; False when the client has gone, or the socket closes."""
        if texts and self.is_writable:
            self.write_encoded(encoded(texts, None), frames=len(texts))
        return self.is_writable

    def write_encoded(self, data: bytes, *, frames: int) -> int:
        """The same with so many frames that are encoded already. Returns how many bytes wait.

        While too much does no request is read: its answer would wait, too.
        """
        if not self.is_writable:
            return 0
        try:
            self._write_encoded(data)
        except OSError:
            # The client has gone; the end of the connection is read elsewhere.
            return 0
        self.written_bytes += len(data)
        self._sent += frames
        _FRAMES.total += frames
        waiting = self._buffered_bytes()
        if waiting > self._edge.settings.stream_buffer_bytes and not self._is_clogged:
            self._is_clogged = True
            self._plan_reading()
        return waiting

    async def until_room(self) -> None:
        """Until little is buffered, or the connection is lost; at once if no more than little is."""
        if self._buffered_bytes() > _LITTLE_BYTES and self.is_held:
            if self._room is None or self._room.done():
                self._room = self._edge.event_loop.create_future()
            await asyncio.shield(self._room)

    def _on_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._is_clogged = False
        self._plan_reading()

    # Its last frame

    def close_soon(self, reason: CloseReason, text: str = "") -> None:
        """Closes when this turn of the event loop has written what it has, and takes no more requests.

        A stranger is hung up on.
        """
        if self._closing is None:
            self._close_text = text
            close = self.close_at_once if self.is_stranger else self.close
            self._closing = self._edge.event_loop.create_task(close(reason))

    def close_behind(self, reason: CloseReason) -> None:
        """Takes and writes nothing more, and closes when the client has read what waits, or is too slow."""
        if self._closing is None:
            self._is_ending = True
            self._closing = self._edge.event_loop.create_task(self._close_behind(reason))

    async def _close_behind(self, reason: CloseReason) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDING_S):
                while self._buffered_bytes() and self.close_reason is None and self.is_held:
                    await self.until_room()
                    await asyncio.sleep(_ROOM_S)
        await self.close(reason)

    def _text_of(self, text: str) -> str:
        return (self._close_text or text).encode()[:_MOST_TEXT_BYTES].decode(errors="ignore")
