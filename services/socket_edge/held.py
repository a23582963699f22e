"""What the edge needs of every connection that it holds, and what sockets and lease holders share."""

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

from starlette.types import Scope, Send

from shared.clock import now_ms
from shared.delivery.loop import DeliveryLoop
from shared.model.channels import CloseReason, Lease
from shared.model.errors import StoreUnavailable
from shared.runtime.websocket.control import Control
from shared.store.queues import BEGINNING
from shared.wire.close_reasons import close_frame

if TYPE_CHECKING:
    from services.socket_edge.credential_watcher import Credential
    from services.socket_edge.edge import Edge
    from services.socket_edge.token_watcher import TokenCredential

# Work on so many connections takes a few milliseconds; then the event loop gets its turn.
_TURN = 100
# A pong that has not come after this share of its time-out is late: then the edge notes what is unread.
_LATE_SHARE = 1 / 4
# The lease went with the channel or the key, or to another owner: there is nothing to release.
WITHOUT_LEASE = (CloseReason.TAKEN_OVER, CloseReason.CHANNEL_DELETED, CloseReason.KEY_REVOKED)


class HeldConnection(ABC):
    """A socket or a long poll. `id` is its channel or session: the name by which wakeups reach it."""

    # What the gauges count it as.
    kind: str
    # The client's address, where the number of connections per address is limited.
    address: str | None = None
    # The account whose share of the edge's turns it has.
    account_id = ""
    # The account whose quota of sockets counts it; None while none does.
    counted_for: str | None = None
    # What delivers from its channel's queue; a session has no such loop, and gets no inline entries.
    loop: DeliveryLoop | None = None
    # The token that opened it, in place of a credential.
    token: "TokenCredential | None" = None
    # Its client reconnects as soon as it closes: all together would be a stampede.
    closes_at_a_pace = True

    def __init__(self, edge: "Edge", id: str) -> None:
        self.id = id
        self.is_held = False
        self.close_reason: CloseReason | None = None
        self.credential: Credential | None = None
        self.expires_at_ms = math.inf
        # The tick of liveness at which it is checked next.
        self.check_tick = math.inf
        self._edge = edge

    @abstractmethod
    async def close(self, reason: CloseReason) -> None:
        """Closes in good order; a second call does nothing."""

    @abstractmethod
    async def abort(self) -> None:
        """Drops the connection at once."""

    @abstractmethod
    def wake(self) -> None:
        """Delivers what waits in Redis."""

    async def drain(self, *, within_s: float) -> None:
        """Closes for a shutdown, once the client has acknowledged what was sent, or the time is over."""
        await self.close(CloseReason.STOPPING)

    def key_is_gone(self) -> None:
        """The API key of its credential was revoked."""
        self.expires_at_ms = 0

    @abstractmethod
    async def finish(self) -> Callable[[], Awaitable[object]] | None:
        """Stops delivery. Returns the call to Redis that releases the lease or session, None without one.

        The call keeps no reference to the connection: it may wait until Redis is back.
        """

    @abstractmethod
    def on_removed(self) -> None:
        """The edge no longer holds the connection: drops what would keep it in memory."""

    @property
    def next_check_s(self) -> float:
        """When `check` may have something to do, by the event loop's clock."""
        if self.expires_at_ms == math.inf:
            return math.inf
        return now_s() + (self.expires_at_ms - now_ms()) / 1000

    async def check(self, now_s: float) -> None:
        """Does what is due by now."""
        if self.expires_at_ms <= now_ms():
            self.expires_at_ms = math.inf
            has_token = self.token is not None
            await self.close(CloseReason.TOKEN_EXPIRED if has_token else CloseReason.KEY_EXPIRED)


@dataclass(slots=True)
class Position:
    """How much of the queue was written or acknowledged: the last entry, and the totals up to it.

    Never changed. Not frozen: that takes three times as long to create.
    """

    entry: str = BEGINNING
    count: int = 0
    size_bytes: int = 0
    frames: int = 0


class PingInFlight(NamedTuple):
    """A ping without a pong: its payload, the loop's time when it was sent, and what its pong confirms."""

    payload: bytes
    sent_s: float
    mark: Position | None


class HeldSocket(HeldConnection):
    """A WebSocket: pinged when it was quiet for the interval, aborted when a pong is overdue."""

    # The name of the log line at its end.
    closed_log: str
    # The code of the client's close frame, once it has come.
    client_code = 0
    _dialect: Literal["pelion", "session", "native"]

    def __init__(self, edge: "Edge", id: str, *, scope: Scope, send: Send) -> None:
        super().__init__(edge, id)
        control: Control = scope["extensions"]["websocket.control"]
        self._send = send
        self._write = control["write"]
        self._unread_bytes = control["unread_bytes"]
        control["hear_pongs"](self.on_pong)
        self._pings = 0
        # The pings in flight, oldest first. No list: an empty one takes 56 bytes of each idle socket.
        self._in_flight: tuple[PingInFlight, ...] = ()
        self._pinged_s = 0.0
        # What was unread when a pong began to be late; None while none is.
        self._unread_when_late: int | None = None
        # When the next ping is due, or when the pong to the oldest ping in flight is late, or overdue.
        self._due_s = edge.event_loop.time() + edge.liveness.ping_interval_s

    def on_accepted(self) -> None:
        """The client was sent the response to its handshake."""

    async def on_message(self, content: str | bytes) -> None:
        """The client sent a text, or a binary message."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, str | int]:
        """For the log line at its end."""

    async def close(self, reason: CloseReason) -> None:
        if self.close_reason is not None:
            return
        self.close_reason = reason
        year = self._edge.settings.pelion_close_codes
        if (frame := close_frame(reason, dialect=self._dialect, year=year)) is None:
            await self.abort()
            return
        try:
            text = self._text_of(frame[1])
            await self._send({"type": "websocket.close", "code": frame[0], "reason": text})
        except OSError:
            self.close_reason = CloseReason.CLIENT_GONE

    def _text_of(self, text: str) -> str:
        """The text of the close frame, in place of the reason's own."""
        return text

    async def close_at_once(self, reason: CloseReason) -> None:
        """Sends the close frame and hangs up: the client's own could take seconds to come, or never come."""
        if self.close_reason is None:
            await self.close(reason)
            await self.abort()

    async def abort(self) -> None:
        await self._send({"type": "websocket.abort"})

    def ping(self, texts: Sequence[bytes] = (), mark: Position | None = None) -> None:
        """Writes the texts and a ping, whose pong confirms everything up to `mark`.

        Raises OSError without a client.
        """
        self._pings += 1
        payload = self._pings.to_bytes(8, "big")
        self._pinged_s = self._edge.event_loop.time()
        self._in_flight = (*self._in_flight, PingInFlight(payload, self._pinged_s, mark))
        self._write(texts, payload)
        if len(self._in_flight) == 1:
            self._set_due()

    def on_pong(self, payload: bytes) -> None:
        """The client answered a ping, which stands for all before it: it need not answer those."""
        for number, ping in enumerate(self._in_flight, start=1):
            if ping.payload == payload:
                self._in_flight = self._in_flight[number:]
                self._set_due()
                self._on_pong(ping)
                return

    def _on_pong(self, ping: PingInFlight) -> None:
        """The client has read everything that was written before the ping."""

    def _clear_pings(self) -> None:
        """Forgets the pings in flight; the next is due after the interval."""
        self._in_flight = ()
        self._set_due()

    def _set_due(self) -> None:
        liveness = self._edge.liveness
        if self._in_flight:
            # Not how much is unread at each ping: that takes a system call, and nearly all are answered soon.
            self._unread_when_late = None
            self._due_s = self._in_flight[0].sent_s + liveness.ping_timeout_s * _LATE_SHARE
        else:
            self._due_s = self._edge.event_loop.time() + liveness.ping_interval_s
        liveness.check_by(self, self._due_s)

    @property
    def next_check_s(self) -> float:
        return min(self._due_s, super().next_check_s)

    async def check(self, now_s: float) -> None:
        await super().check(now_s)
        if now_s < self._due_s:
            return
        if self._in_flight and self._unread_when_late is None:
            self._unread_when_late = self._unread_bytes()
            self._due_s = self._in_flight[0].sent_s + self._edge.liveness.ping_timeout_s
            return
        if self._in_flight:
            await self._abort_if_stalled(now_s)
            return
        try:
            self.ping()
        except OSError:
            self._due_s = math.inf

    async def _abort_if_stalled(self, now_s: float) -> None:
        """A slow client gets more time for as long as it reads."""
        unread, before = self._unread_bytes(), self._unread_when_late or 0
        if 0 < unread < before:
            self._unread_when_late = unread
            self._due_s = now_s + self._edge.liveness.ping_timeout_s
            return
        self.close_reason = self.close_reason or CloseReason.STALLED
        self._due_s = math.inf
        await self.abort()


class LeaseHolder(HeldConnection):
    """A connection with its channel's lease, which is the transport of the channel's delivery loop."""

    lease: Lease
    loop: DeliveryLoop

    def wake(self) -> None:
        self.loop.wake()

    def key_is_gone(self) -> None:
        if self.credential is not None and self.credential.api_key_id != self.id:
            # The channel is not the key's, and stays.
            super().key_is_gone()
            return
        # The queue's script gives the reason: a revoked key, a deleted channel, or a takeover.
        self.loop.wake()

    async def end(self, close_reason: CloseReason) -> None:
        """As the loop's transport: the lease is gone."""
        await self.close(close_reason)

    async def finish(self) -> Callable[[], Awaitable[object]] | None:
        with contextlib.suppress(StoreUnavailable):
            await self.loop.stop()
        if self.close_reason in WITHOUT_LEASE:
            return None
        return partial(self._edge.stores.leases.release, self.lease)

    def on_removed(self) -> None:
        # The loop refers to its transport: both would stay in memory until the garbage collector runs.
        del self.loop


class _IsHeld(Protocol):
    @property
    def is_held(self) -> bool:
        """Whether the edge holds it."""


Held = TypeVar("Held", bound=_IsHeld)


async def in_turns(connections: Iterable[Held]) -> AsyncIterator[Held]:
    """The connections that are still held when their turn comes, with pauses for other work."""
    for number, connection in enumerate(connections, start=1):
        if connection.is_held:
            yield connection
        if number % _TURN == 0:
            await asyncio.sleep(0)


def now_s() -> float:
    """The event loop's time."""
    return asyncio.get_running_loop().time()
