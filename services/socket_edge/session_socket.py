"""A session's socket: it takes the session's queue at once, and writes as fast as the client reads.

Delivery to sessions is at most once, so nothing is acknowledged. Fifty frames wait here for a client that
reads slowly; beyond that the newest are dropped, and counted.
"""

import asyncio
import contextlib
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import Scope, Send

from services.socket_edge.held import HeldSocket
from shared import telemetry
from shared.clock import now_ms
from shared.model.api_keys import new_id
from shared.model.channels import CloseReason
from shared.model.errors import StoreUnavailable
from shared.model.events import Notification
from shared.model.quotas import Quota
from shared.model.sessions import EVERY_ACCOUNT, Dialect, Session, SessionBinding
from shared.runtime.http.client_address import block_of, client_address
from shared.store.sessions import Sessions

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

logger = logging.getLogger(__name__)

WAITING_LIMIT = 50
WAITING_LIMIT_BYTES = 1024 * 1024
# Beyond so many written bytes that the client has not read, frames wait.
UNREAD_LIMIT_BYTES = 256 * 1024
_FLUSH_S = 0.02
# An event has a frame for each binding that matches it, and a queue has up to 1,000 events.
_FRAMES_PER_TURN = 64


def address_of(edge: "Edge", scope: Scope) -> str:
    """The client's address."""
    return client_address(scope, trusted=edge.settings.trusted_proxies)


async def hold(edge: "Edge", socket: HeldSocket, *, is_authenticated: bool) -> None:
    """Holds the socket, once the credentials in its handshake are checked. Raises Problem (429).

    Not before: a stranger must not take the place of an authenticated socket from the same address.
    """
    address = socket.address or ""
    leaving = edge.admission.make_room(address, for_stranger=not is_authenticated)
    edge.hold(socket)
    if not is_authenticated:
        edge.admission.add_stranger(socket, address)
    for each in leaving:
        await each.close_at_once(CloseReason.CROWDED_OUT)


class SessionSocket(HeldSocket):
    """A socket and its session, which others see from `register` on."""

    kind: Dialect
    closed_log = "session.closed"
    _dialect = "session"

    def __init__(self, edge: "Edge", *, address: str, scope: Scope, send: Send) -> None:
        super().__init__(edge, new_id(), scope=scope, send=send)
        self.address = block_of(address)
        self.session = Session(
            id=self.id,
            dialect=self.kind,
            account_id="",
            owner=edge.new_owner(),
            source=address,
            destination=edge.settings.replica,
            connected_at_ms=now_ms(),
        )
        self.sent = 0
        self.dropped = 0
        # None until `register`.
        self._bindings: Sequence[SessionBinding] | None = None
        # A frame must not precede the response to the handshake.
        self._is_open = False
        self._is_woken = False
        self._delivery: asyncio.Task[None] | None = None
        # No deque: an empty one takes 760 bytes of each idle socket.
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    @abstractmethod
    def frames(self, notification: Notification) -> list[bytes]:
        """The notification as frames of the dialect."""

    # The session in Redis

    @property
    def _sessions(self) -> Sessions:
        return self._edge.stores.sessions

    async def register(
        self,
        bindings: Sequence[SessionBinding],
        *,
        account_id: str,
        name: str = "",
        metadata: bytes = b"",
    ) -> None:
        """Writes the session as it is now: others see it, and the next publish honours what it asks for.

        Raises StoreUnavailable.
        """
        requested = tuple(dict.fromkeys(each.requested for each in bindings if each.requested))
        self.session = replace(
            self.session, account_id=account_id, bindings=requested, name=name, metadata=metadata
        )
        # Set first: even a write that failed may have been done, and must be released.
        self._bindings = bindings
        await self._sessions.put(self.session, bindings)

    async def check_bindings(self, wanted: Sequence[SessionBinding]) -> None:
        """Raises QuotaExceeded when these are more than an account may still have."""
        more = Counter(each.account for each in wanted)
        more.subtract(each.account for each in self._bindings or ())
        for account_id, count in more.items():
            # Those to all accounts are the operator's: only a master account may have them.
            if count > 0 and account_id != EVERY_ACCOUNT:
                await self._edge.stores.quotas.check(account_id, Quota.BINDINGS, more=count)

    async def recover(self) -> None:
        """Redis may have lost the session: writes it, then delivers. Raises StoreUnavailable."""
        await self._register_again()
        self.wake()

    async def _register_again(self) -> None:
        session = None
        # A change that comes meanwhile may be overwritten by what was true before: write that, too.
        while self._bindings is not None and session is not self.session:
            session = self.session
            await self._sessions.put(session, self._bindings)
            if not self.is_held:
                # Its release came first.
                await self._sessions.drop(session)

    async def finish(self) -> Callable[[], Awaitable[object]] | None:
        return None if self._bindings is None else partial(self._sessions.drop, self.session)

    # Delivery

    def on_accepted(self) -> None:
        self._is_open = True
        # A ping that was due during the handshake could not be written.
        self._clear_pings()
        self.wake()

    def wake(self) -> None:
        self._is_woken = self._bindings is not None and self._is_open and self.is_held
        if self._is_woken and self._delivery is None:
            self._delivery = asyncio.create_task(self._deliver_all())

    async def _deliver_all(self) -> None:
        try:
            while self._is_woken and self.close_reason is None:
                self._is_woken = False
                # The restored subscription wakes it again, perhaps while this call fails.
                with contextlib.suppress(StoreUnavailable):
                    await self._deliver_in_turn()
        except Exception:
            logger.exception("session.failed", extra={"facts": self.facts})
            await self.close(CloseReason.UNEXPECTED)
        finally:
            self._delivery = None

    async def _deliver_in_turn(self) -> None:
        places = self._edge.reading_places
        if not places.take_free(self):
            await places.take(self)
        try:
            await self._deliver()
        finally:
            places.give_back(self)

    async def _deliver(self) -> None:
        taken = await self._sessions.take(self.session)
        if taken is None:
            await self._register_again()
        frames = 0
        for notification in taken or ():
            frames += self.deliver(notification)
            if frames >= _FRAMES_PER_TURN:
                frames = 0
                await asyncio.sleep(0)

    def deliver(self, notification: Notification) -> int:
        """Writes the frames; for a slow reader they wait, and beyond the limit they are dropped.

        Returns how many there are.
        """
        frames = self.frames(notification)
        written = 0
        # Again and again: a client that reads fast has read the first by now.
        while not self._waiting and (count := self._count_writable(frames[written:])):
            self.write(*frames[written : written + count])
            written += count
        for frame in frames[written:]:
            if self._may_wait(frame):
                self._waiting.append(frame)
                self._waiting_bytes += len(frame)
                if self._flushing is None:
                    self._flushing = asyncio.create_task(self._flush())
            else:
                self.dropped += 1
                telemetry.dropped_for_slow_reader(1)
        return len(frames)

    def _count_writable(self, frames: Sequence[bytes]) -> int:
        """How many of the frames a client that reads gets at once."""
        unread = self._unread_bytes()
        for number, frame in enumerate(frames):
            if unread >= UNREAD_LIMIT_BYTES:
                return number
            unread += len(frame)
        return len(frames)

    def write(self, *texts: bytes) -> bool:
        """Writes frames; False when the client has gone."""
        if self.close_reason is not None:
            return False
        try:
            self._write(texts, None)
        except OSError:
            return False
        self.sent += len(texts)
        telemetry.frames.add(len(texts), {"dialect": self.kind})
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

    def on_removed(self) -> None:
        self._edge.admission.forget(self)
        for task in (self._delivery, self._flushing):
            if task is not None:
                task.cancel()
        self._waiting.clear()

    @property
    def facts(self) -> dict[str, str | int]:
        return {
            "session": "" if self._bindings is None else self.id,
            "dialect": self.kind,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "sent": self.sent,
            "dropped": self.dropped,
        }
