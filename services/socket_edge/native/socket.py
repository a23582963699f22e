"""A client's native WebSocket: its requests, who it is, and its end (docs/protocols/native.md).

Requests are read as they come, bounded in number and in bytes; beyond that reading stops. A socket that is
idle has no task but the one that reads.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import cache
from inspect import CORO_CREATED, getcoroutinestate
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import Scope, Send

from services.socket_edge.admission import Budget
from services.socket_edge.credential_watcher import Credential
from services.socket_edge.native.parts import Handler, Part, Said
from services.socket_edge.native.publish import Publishes
from services.socket_edge.native.refusals import native_error
from services.socket_edge.native.writes import WrittenSocket
from services.socket_edge.token_watcher import TokenCredential
from shared import telemetry
from shared.meters import Series
from shared.model.api_keys import ApiKey, new_id
from shared.model.channels import CloseReason
from shared.model.errors import Unauthenticated
from shared.model.grants import Grant
from shared.runtime.http.client_address import block_of
from shared.runtime.websocket.control import Control
from shared.wire.native import replies
from shared.wire.native.frames import MOST_EVENTS, Refused, Request, parse_frame
from shared.wire.native.members import Malformed

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

logger = logging.getLogger(__name__)

AUTHENTICATE_S = 10.0
MOST_TOPICS = 100
MOST_CHANNELS = 100
MOST_UNANSWERED = 64
"""Requests that were read and have no answer. The next one is read when one has.

One publisher with so many under way has a fifth less cost for each than one with 16.
"""
MOST_UNANSWERED_BYTES = 1024 * 1024
FRAME_BYTES = 1024 * 1024
STRANGERS_FRAME_BYTES = 64 * 1024
_WITHOUT_CALLER = ("auth", "ping")
# They have bounds of their own: those of the account's rates, and of what a channel has in flight.
_UNLIMITED = ("publish", "ack")

P = TypeVar("P", bound=Part)


@cache
def _requests_of(operation: str, outcome: str) -> Series:
    return telemetry.native_requests.series({"operation": operation, "outcome": outcome})


class NotAuthenticated(Unauthenticated):
    """A request came before `auth`."""

    def __init__(self) -> None:
        Exception.__init__(self, "the socket is not authenticated: send auth first")


class NativeSocket(WrittenSocket):
    """One socket. `caller` is what its token allows, or its API key; None before `auth`."""

    closed_log = "native.closed"

    def __init__(
        self, edge: "Edge", handlers: Mapping[str, Handler], *, address: str, scope: Scope, send: Send
    ) -> None:
        super().__init__(edge, new_id(), scope=scope, send=send)
        self.address = self.source = block_of(address)
        self.caller: ApiKey | Grant | None = None
        self.is_draining = False
        self._handlers = handlers
        self._parts: dict[type[Part], Part] = {}
        self._requests = 0
        # What waits for the requests before it. No deque: an empty one takes 760 bytes of each idle socket.
        self._waiting: list[Request | Refused] = []
        self._working: asyncio.Task[None] | None = None
        self._handled: Coroutine[Any, Any, Said | None] | None = None
        self._unanswered = self._unanswered_bytes = 0
        self._is_open = self._is_holding = False
        # When nothing is unanswered any more, for a shutdown.
        self._answered: asyncio.Future[None] | None = None
        # Of a stranger; None from `become` on.
        self._budget: Budget | None = Budget(edge.settings)
        self._authenticate_by_s = edge.event_loop.time() + AUTHENTICATE_S
        control: Control = scope["extensions"]["websocket.control"]
        self._hear_messages, self._hold_messages = control["hear_messages"], control["hold_messages"]
        self._hear_control_frames = control["hear_control_frames"]
        self._hear_control_frames(self._on_control_frame)

    # Who it is

    @property
    def is_stranger(self) -> bool:
        return self.caller is None

    def become(self, caller: ApiKey | Grant, credential: Credential | TokenCredential) -> None:
        """The client has authenticated, or has another token. The socket ends with it."""
        is_first, self.caller = self.caller is None, caller
        self._edge.authenticated(self, credential)
        if is_first:
            self._budget = None
            self._hear_control_frames(None)
            self._edge.admission.forget(self)
            if self._is_open:
                self._hear_messages(self._hear, FRAME_BYTES)
        else:
            for part in list(self._parts.values()):
                part.on_refreshed()

    def part(self, kind: type[P]) -> P:
        """The part of this kind; it is made with the first use."""
        part = self._parts.get(kind)
        if part is None:
            part = self._parts[kind] = kind(self)
        assert isinstance(part, kind)
        return part

    def _on_control_frame(self, size_bytes: int) -> None:
        """A stranger's ping or pong counts like a message. The pongs to our pings are not heard here."""
        if self._budget is not None and not self._budget.take(size_bytes):
            self._hear_control_frames(None)
            self.close_soon(CloseReason.OVER_BUDGET)

    # Requests

    def on_accepted(self) -> None:
        self._is_open = True
        self._hear_messages(self._hear, STRANGERS_FRAME_BYTES if self._budget is not None else FRAME_BYTES)
        # A ping that was due during the handshake could not be written.
        self._clear_pings()
        limits = {
            "frame_bytes": FRAME_BYTES,
            "topics": MOST_TOPICS,
            "channels": MOST_CHANNELS,
            "unanswered_publishes": MOST_UNANSWERED,
            "events": MOST_EVENTS,
        }
        if self.caller is None:
            limits["authenticate_within_s"] = int(AUTHENTICATE_S)
        self.write(replies.hello(self.id, limits, self.said_of_caller()))

    def said_of_caller(self) -> dict[str, Any]:
        """Whom it is for, and when it ends."""
        if self.caller is None:
            return {}
        subject = self.caller.subject if isinstance(self.caller, Grant) else ""
        return replies.until(subject, self.expires_at_ms)

    async def on_message(self, content: str | bytes) -> None:
        # Only what came before the response to its handshake.
        is_text = isinstance(content, str)
        self._hear(content.encode() if isinstance(content, str) else content, is_text)

    def _hear(self, message: bytes, is_text: bool) -> bool:
        """A frame; returns whether it counts for the rate at which the client may send any."""
        if self.close_reason is not None or self._closing is not None:
            # What was read together with the frame that closed the socket.
            return True
        if self._budget is not None and not self._budget.take(len(message)):
            self.close_soon(CloseReason.OVER_BUDGET)
            return True
        try:
            if not is_text:
                raise Malformed("the frame is binary; requests are text")
            request: Request | Refused = parse_frame(message)
        except Malformed as error:
            self.close_soon(CloseReason.MALFORMED, str(error))
            return True
        except Refused as error:
            request = error
        self._take(request)
        return request.operation not in _UNLIMITED

    def _take(self, request: Request | Refused) -> None:
        self._requests += 1
        self._unanswered += 1
        self._unanswered_bytes += request.size_bytes
        if self._working is None:
            self._begin(request)
        else:
            self._waiting.append(request)
        self._plan_reading()

    def _begin(self, request: Request | Refused) -> None:
        try:
            if isinstance(request, Refused):
                raise request
            if self.caller is None and request.operation not in _WITHOUT_CALLER:
                raise NotAuthenticated
            handled = self._handlers[request.operation](self, request)
        except Malformed as error:
            self.close_soon(CloseReason.MALFORMED, str(error))
            return
        except Exception as error:
            publishes = self._parts.get(Publishes) if request.operation == "publish" else None
            if isinstance(publishes, Publishes):
                publishes.refuse(request, error)
            else:
                self.refuse(request, error)
            return
        if isinstance(handled, tuple):
            self.answer(request, handled)
        elif handled is not None:
            self._handled = handled
            self._working = self._edge.event_loop.create_task(self._work(request, handled))

    async def _work(self, request: Request | Refused, handled: Coroutine[Any, Any, Said | None]) -> None:
        try:
            if (said := await handled) is not None:
                self.answer(request, said)
        except Exception as error:
            self.refuse(request, error)
        finally:
            self._working = self._handled = None
        self._begin_next()

    def _begin_next(self) -> None:
        """Begins what has waited, up to the next one that takes its time."""
        while self._waiting and self._working is None and self.close_reason is None:
            self._begin(self._waiting.pop(0))

    def answer(self, request: Request | Refused, said: Said | bytes) -> None:
        """Answers a request that was begun: with a name and a value, or with the text of the frame."""
        if request.ref is not None:
            self.write(said if isinstance(said, bytes) else replies.answer(request.ref, *said))
        self._count_answered(request, "done")
        self._on_answered()

    def refuse(self, request: Request | Refused, error: Exception) -> None:
        """Tells the client that a request was not carried out, and why."""
        self.answer_all([(request, error)])

    def answer_all(self, answers: Sequence[tuple[Request | Refused, bytes | Exception]]) -> None:
        """Answers requests that were begun, in one write: with the text of a frame, or an error."""
        texts: list[bytes] = []
        for request, said in answers:
            outcome = "done"
            if isinstance(said, Exception):
                said, outcome = self._error_text(request, said)
            texts.append(said)
            self._count_answered(request, outcome)
        self.write(*texts)
        self._on_answered()

    def _error_text(self, request: Request | Refused, error: Exception) -> tuple[bytes, str]:
        refused = native_error(error)
        if refused.code is replies.ErrorCode.INTERNAL:
            facts = {"session": self.id, "operation": request.operation}
            logger.error("native.request-failed", extra={"facts": facts}, exc_info=error)
        text = replies.error(request.ref, refused.code, refused.message, retry_after_s=refused.retry_after_s)
        return text, refused.code

    def _count_answered(self, request: Request | Refused, outcome: str) -> None:
        self._unanswered -= 1
        self._unanswered_bytes -= request.size_bytes
        _requests_of(request.operation, outcome).total += 1

    def _on_answered(self) -> None:
        self._plan_reading()
        if self._answered is not None and not self._unanswered and not self._answered.done():
            self._answered.set_result(None)

    def _plan_reading(self) -> None:
        """Reads on, unless too much is unanswered or unread."""
        has_room = (
            # One more than was said: a client that keeps to it is always read.
            self._unanswered <= MOST_UNANSWERED
            and self._unanswered_bytes < MOST_UNANSWERED_BYTES
            and not self._is_clogged
        )
        if has_room is self._is_holding:
            self._is_holding = not has_room
            self._hold_messages(not has_room)

    # Its end

    def wake(self) -> None:
        for part in list(self._parts.values()):
            part.wake()

    @property
    def next_check_s(self) -> float:
        due_s = super().next_check_s
        return due_s if self._budget is None else min(due_s, self._authenticate_by_s)

    async def check(self, now_s: float) -> None:
        await super().check(now_s)
        if self._budget is not None and now_s >= self._authenticate_by_s:
            await self.close_at_once(CloseReason.NOT_AUTHENTICATED)

    async def drain(self, *, within_s: float) -> None:
        """Closes when what was read is answered and what was sent is acknowledged, or the time is over."""
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(part.drain() for part in self._parts.values()))
                if self._unanswered:
                    self._answered = self._edge.event_loop.create_future()
                    await self._answered
        await self.close(CloseReason.STOPPING)

    async def finish(self) -> None:
        for task in (self._working, self._closing):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        if self._handled is not None and getcoroutinestate(self._handled) == CORO_CREATED:
            # Its task has not begun, and now never does.
            self._handled.close()
        # The client had sent them, and may count on them.
        for request in self._waiting:
            if request.operation == "ack":
                self._begin(request)
        parts, self._parts = self._parts, {}
        await asyncio.gather(*(part.end() for part in parts.values()))

    def on_removed(self) -> None:
        self._edge.admission.forget(self)
        self._waiting.clear()

    @property
    def facts(self) -> dict[str, str | int]:
        return {
            "session": self.id,
            "account": self.account_id,
            "reason": self.close_reason or CloseReason.CLIENT_GONE,
            "requests": self._requests,
            "sent": self._sent,
        }
