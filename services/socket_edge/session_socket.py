"""One session's socket: whatever waits for it is taken at once, and written as fast as the client reads.

A session is promised nothing, so nothing is confirmed. A client that reads slowly has so much on its way and
fifty more waiting here; beyond that the newest are dropped, and counted.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from starlette.types import Message, Scope, Send

from shared import telemetry
from shared.model.channels import CloseReason
from shared.model.events import Notification
from shared.model.sessions import Dialect, Session, Wanted
from shared.runtime.clock import now_ms
from shared.wire.close_reasons import close_frame

WAITING_LIMIT = 50
WAITING_LIMIT_BYTES = 1024 * 1024
# On its way to a client that does not keep up.
UNREAD_LIMIT_BYTES = 256 * 1024
_FLUSH_S = 0.02

Frames = Callable[[Notification], Sequence[bytes]]


class SessionSocket:
    """A socket, and what is to be written to it. `frames` turns a notification into its dialect's frames."""

    def __init__(self, *, dialect: Dialect, source: str, scope: Scope, send: Send, frames: Frames) -> None:
        self.dialect = dialect
        self.source = source
        self.connected_at_ms = now_ms()
        self.session: Session | None = None
        self.wanted: Sequence[Wanted] = ()
        self.close_reason: CloseReason | None = None
        # Frames before the handshake is answered would come before their time.
        self.is_open = False
        self.sent = 0
        self.dropped = 0
        self._frames = frames
        self._send = send
        control = scope["extensions"]["websocket.control"]
        self._unread_bytes: Callable[[], int] = control["unread_bytes"]
        self._last_ping_s: Callable[[], float] = control["last_ping_s"]
        # No deque: an empty one takes 760 bytes of each idle socket.
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._flushing: asyncio.Task[None] | None = None
        self._pings = 0
        self._ping = b""
        self._unread_when_pinged = 0
        self._heard_s = asyncio.get_running_loop().time()

    @property
    def last_heard_s(self) -> float:
        """When the client last said something by itself; a pong to a ping of ours is nothing."""
        return max(self._heard_s, self._last_ping_s())

    def heard(self) -> None:
        self._heard_s = asyncio.get_running_loop().time()

    async def offer(self, notification: Notification) -> None:
        """Writes it, or has it wait, or drops it. Of a client that has gone others hear."""
        for frame in self._frames(notification):
            if not self._waiting and self._unread_bytes() < UNREAD_LIMIT_BYTES:
                await self.say(frame)
            elif self._fits(frame):
                self._waiting.append(frame)
                self._waiting_bytes += len(frame)
                if self._flushing is None:
                    self._flushing = asyncio.create_task(self._flush())
            else:
                self.dropped += 1
                telemetry.dropped_for_slow_reader(1)

    async def say(self, text: bytes) -> bool:
        """Writes one frame at once; tells whether it could."""
        if self.close_reason is not None:
            return False
        try:
            await self._send({"type": "websocket.send", "utf8": text})
        except OSError:
            return False
        self.sent += 1
        telemetry.frames.add(1, {"dialect": self.dialect})
        return True

    async def end(self, close_reason: CloseReason, *, codes: int) -> None:
        """Says goodbye."""
        if self.close_reason is None:
            self.close_reason = close_reason
            code, reason = close_frame(close_reason, dialect="session", year=codes)
            await self._try({"type": "websocket.close", "code": code, "reason": reason})

    async def abort(self) -> None:
        await self._try({"type": "websocket.abort"})

    async def ping(self) -> None:
        """Asks whether the client is there."""
        self._pings += 1
        self._ping = self._pings.to_bytes(8, "big")
        self._unread_when_pinged = self._unread_bytes()
        await self._try({"type": "websocket.ping", "bytes": self._ping})

    def answers(self, payload: bytes) -> bool:
        """Is this the pong to the last ping?"""
        return payload == self._ping

    def gets_on(self) -> bool:
        """It owes a pong: has it at least read something since?"""
        unread = self._unread_bytes()
        gets_on = 0 < unread < self._unread_when_pinged
        self._unread_when_pinged = unread
        return gets_on

    def over(self) -> None:
        """The connection is gone."""
        if self._flushing is not None:
            self._flushing.cancel()
        self._waiting.clear()

    @property
    def facts(self) -> dict[str, str | int]:
        """What the one line in the log tells of it."""
        return {
            "session": self.session.id if self.session else "",
            "dialect": self.dialect,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "sent": self.sent,
            "dropped": self.dropped,
        }

    def _fits(self, frame: bytes) -> bool:
        return len(self._waiting) < WAITING_LIMIT and self._waiting_bytes + len(frame) <= WAITING_LIMIT_BYTES

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(_FLUSH_S)
            while self._waiting and self._unread_bytes() < UNREAD_LIMIT_BYTES:
                frame = self._waiting.pop(0)
                self._waiting_bytes -= len(frame)
                await self.say(frame)
        self._flushing = None

    async def _try(self, message: Message) -> None:
        with contextlib.suppress(OSError):
            await self._send(message)
