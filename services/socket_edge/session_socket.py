"""A session's socket: what waits for the session is taken at once, and written as fast as the client reads.

Sessions have no delivery guarantee, so nothing is acknowledged. For a client that reads slowly fifty frames
wait here; beyond that the newest are dropped, and counted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from starlette.types import Send

from services.socket_edge.held import HeldSocket
from services.socket_edge.liveness import Liveness
from shared import telemetry
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from shared.model.sessions import Dialect, Session, Wanted
from shared.runtime.http.client_address import Network
from shared.runtime.websocket.protocol import Control
from shared.store.sessions import Sessions

logger = logging.getLogger(__name__)

WAITING_LIMIT = 50
WAITING_LIMIT_BYTES = 1024 * 1024
# Written, and not yet confirmed by a client that does not keep up.
UNREAD_LIMIT_BYTES = 256 * 1024
_FLUSH_S = 0.02

Frames = Callable[[Notification], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits of session sockets. `most_per_address` None: any number."""

    idle_s: float
    most_per_address: int | None
    destination: str
    trusted_proxies: Sequence[Network]


class SessionSocket(HeldSocket):
    """A socket and its session, which others see from `register` on.

    `frames` turns a notification into the frames of the dialect.
    """

    _dialect = "session"

    def __init__(
        self,
        session: Session,
        *,
        control: Control,
        send: Send,
        liveness: Liveness,
        year: int,
        sessions: Sessions,
        idle_s: float,
        frames: Frames,
    ) -> None:
        super().__init__(session.id, send=send, control=control, liveness=liveness, year=year)
        self.kind = session.dialect
        self.address = session.source
        self.session = session
        self.sent = 0
        self.dropped = 0
        self._sessions = sessions
        self._idle_s = idle_s
        self._frames = frames
        self._last_ping_s: Callable[[], float] = control["last_ping_s"]
        self._wanted: Sequence[Wanted] = ()
        self._is_registered = False
        self._has_ended = False
        # A frame must not precede the response to the handshake.
        self._is_open = False
        self._is_woken = False
        self._delivery: asyncio.Task[None] | None = None
        # No deque: an empty one takes 760 bytes of each idle socket.
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._flushing: asyncio.Task[None] | None = None
        self._heard_s = asyncio.get_running_loop().time()

    # The session in Redis

    async def register(
        self,
        wanted: Sequence[Wanted],
        *,
        account_id: str,
        name: str = "",
        metadata: bytes = b"",
    ) -> None:
        """Writes the session as it is now: others see it, and the next publish honours what it asks for.

        Raises StoreUnavailable.
        """
        bindings = tuple(dict.fromkeys(one.requested for one in wanted if one.requested))
        self.session = replace(
            self.session, account_id=account_id, bindings=bindings, name=name, metadata=metadata
        )
        # Set first: even a write that failed may have been done, and must be released.
        self._wanted, self._is_registered = wanted, True
        await self._sessions.put(self.session, wanted)

    async def recover(self) -> None:
        await self._register_again()
        self.wake()

    async def _register_again(self) -> None:
        session = None
        # A change that comes meanwhile may be overwritten by what was true before: write that, too.
        while self._is_registered and session is not self.session:
            session = self.session
            await self._sessions.put(session, self._wanted)
            if self._has_ended:
                # Its release came first.
                await self._sessions.drop(session)

    async def finish(self) -> None:
        self._has_ended = True

    def release_call(self) -> Callable[[], Awaitable[object]] | None:
        return partial(self._sessions.drop, self.session) if self._is_registered else None

    # Delivery

    def opened(self) -> None:
        """The handshake is accepted: from now on it is written to."""
        self._is_open = True
        self.wake()

    def wake(self) -> None:
        self._is_woken = self._is_registered and self._is_open
        if self._is_woken and self._delivery is None:
            self._delivery = asyncio.create_task(self._deliver_all())

    async def _deliver_all(self) -> None:
        try:
            while self._is_woken and self.close_reason is None:
                self._is_woken = False
                await self._deliver()
        except StoreUnavailable:
            # The restored subscription wakes it again.
            return
        except Exception:
            logger.exception("session.failed", extra={"facts": self.facts})
            await self.close(CloseReason.UNEXPECTED)
        finally:
            self._delivery = None

    async def _deliver(self) -> None:
        session = self.session
        if session.dialect is Dialect.COGNISM:
            for push_id, data in await self._sessions.pushes(session.id):
                if self.write(data):
                    await self._sessions.mark_pushed(session.id, push_id)
        taken = await self._sessions.take(session)
        if taken is None:
            await self._register_again()
        for notification in taken or ():
            self.deliver(notification)

    def deliver(self, notification: Notification) -> None:
        """Writes the notification, or lets it wait, or drops it."""
        for frame in self._frames(notification):
            if not self._waiting and self._unread_bytes() < UNREAD_LIMIT_BYTES:
                self.write(frame)
            elif self._may_wait(frame):
                self._waiting.append(frame)
                self._waiting_bytes += len(frame)
                if self._flushing is None:
                    self._flushing = asyncio.create_task(self._flush())
            else:
                self.dropped += 1
                telemetry.dropped_for_slow_reader(1)

    def write(self, text: bytes) -> bool:
        """Writes one frame; False when the client has gone."""
        if self.close_reason is not None:
            return False
        try:
            self._write((text,), None)
        except OSError:
            return False
        self.sent += 1
        telemetry.frames.add(1, {"dialect": self.session.dialect})
        return True

    def _may_wait(self, frame: bytes) -> bool:
        return len(self._waiting) < WAITING_LIMIT and self._waiting_bytes + len(frame) <= WAITING_LIMIT_BYTES

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(_FLUSH_S)
            while self._waiting and self._unread_bytes() < UNREAD_LIMIT_BYTES:
                frame = self._waiting.pop(0)
                self._waiting_bytes -= len(frame)
                self.write(frame)
        self._flushing = None

    # Liveness

    def on_message(self) -> None:
        """The client sent something by itself; a pong is nothing."""
        self._heard_s = asyncio.get_running_loop().time()

    @property
    def _idle_at_s(self) -> float:
        return max(self._heard_s, self._last_ping_s()) + self._idle_s

    @property
    def next_check_s(self) -> float:
        due_s = super().next_check_s
        return due_s if self.close_reason is not None else min(due_s, self._idle_at_s)

    async def check(self, now_s: float) -> None:
        await super().check(now_s)
        if now_s > self._idle_at_s:
            await self.close(CloseReason.IDLE)

    def removed(self) -> None:
        super().removed()
        for task in (self._delivery, self._flushing):
            if task is not None:
                task.cancel()
        self._waiting.clear()

    @property
    def facts(self) -> dict[str, str | int]:
        """For the log line at its end."""
        return {
            "session": self.session.id if self._is_registered else "",
            "dialect": self.session.dialect,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "sent": self.sent,
            "dropped": self.dropped,
        }
