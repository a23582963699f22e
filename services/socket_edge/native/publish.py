"""The operation `publish` of a native socket: a publisher that keeps its connection, with many requests under
way.

It calls the functions that POST /v1/events calls, by callbacks: a task runs only for a request with an
idempotency key, and for a long one. Requests begin in the order of arrival, also behind one that waits for
its key's mark in Redis: their events must not overtake. They are answered in that order too, those of a turn
of the event loop in one write.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from services.socket_edge.native.parts import Part
from services.socket_edge.native.refusals import Refusal
from shared.authentication import require_scope
from shared.clock import now_ms
from shared.model.api_keys import ApiKey, Scope
from shared.model.errors import Invalid, KeyIsRunning, KeyOfAnother, Unauthenticated
from shared.model.grants import Grant
from shared.model.idempotency import Deadline, Repeatable
from shared.publish.request import (
    LONG_BODY_BYTES,
    Headers,
    Posted,
    check_granted,
    parse,
    parse_in_turns,
    published_events,
    repeatable,
)
from shared.wire.events import random_ids
from shared.wire.idempotency import is_idempotency_key
from shared.wire.native import replies
from shared.wire.native.frames import MOST_EVENTS, Publish, Refused, Request, check
from shared.wire.native.replies import ErrorCode

if TYPE_CHECKING:
    from services.socket_edge.native.socket import NativeSocket

_EVENTS = "publish.events"
_KEY = "publish.idempotency_key"
# As a body of POST /v1/events: a request may be repeated there.
_HEADERS = Headers(content_type="application/json")
_RETRY_S = 1.0
# They go on when their socket has ended: a repetition gets their response.
_TASKS = set[asyncio.Task[None]]()


def publish(socket: "NativeSocket", request: Request) -> None:
    """Publishes the events of the request; it is answered later. Raises what a publish is refused with."""
    socket.part(Publishes).begin(request)


class _Asked:
    """A request. `start` begins to append its events; None while they, or its key, are not there yet."""

    __slots__ = ("outcome", "request", "start")

    def __init__(self, request: Request | Refused) -> None:
        self.request = request
        self.start: Callable[[], None] | None = None
        # The text of the answer, or the error.
        self.outcome: bytes | Exception | None = None


class Publishes(Part):
    """The publishes of one socket that are not answered."""

    def __init__(self, socket: "NativeSocket") -> None:
        super().__init__(socket)
        self._publishing = socket.edge.publishing
        self._asked: list[_Asked] = []
        # Those whose events are not being appended yet, and all behind them.
        self._unbegun: list[_Asked] = []
        self._is_answering = False
        self._answered: asyncio.Future[None] | None = None

    def begin(self, request: Request) -> None:
        """Raises Malformed, and what the client is refused with."""
        if self.socket.is_draining:
            raise Refusal(ErrorCode.UNAVAILABLE, "this replica shuts down: connect again", retry_after_s=1)
        caller = self._caller()
        assert isinstance(request.body, Publish)
        events = bytes(request.body.events)
        repeated = self._repeatable(caller, request.body, events)
        if len(events) > LONG_BODY_BYTES:
            # What is malformed must close the socket before anything else of it is begun.
            check(request)
            asked = self._ask(request)
            _in_background(self._publish_slowly(asked, caller, events, repeated))
        elif repeated is not None:
            posted = self._parse(caller, request, events, repeated.event_id)
            _in_background(self._publish_once(self._ask(request), posted, repeated))
        else:
            posted = self._parse(caller, request, events, random_ids())
            self._start(self._ask(request), posted)

    def refuse(self, request: Request | Refused, error: Exception) -> None:
        """Refuses a request behind the answers of those before it."""
        asked = _Asked(request)
        self._asked.append(asked)
        self._end(asked, error)

    # What is asked for

    def _caller(self) -> ApiKey | Grant:
        """Raises MissingScope; Unauthenticated while the socket is about to close, since that has ended."""
        caller = self.socket.caller
        if caller is None or self.socket.expires_at_ms <= now_ms():
            raise Unauthenticated
        if isinstance(caller, ApiKey):
            require_scope(caller.scopes, Scope.PUBLISH)
        return caller

    def _repeatable(self, caller: ApiKey | Grant, body: Publish, events: bytes) -> Repeatable | None:
        """Raises Invalid."""
        if not events.startswith(b"["):
            raise Invalid("must be an array", field=_EVENTS)
        if body.idempotency_key is None:
            return None
        if not is_idempotency_key(body.idempotency_key):
            raise Invalid("must be 1 to 255 printable ASCII characters", field=_KEY)
        return repeatable(caller, body.idempotency_key, kind=_HEADERS.content_type, body=events)

    def _parse(
        self, caller: ApiKey | Grant, request: Request, events: bytes, id_of: Callable[[int], str]
    ) -> Posted:
        """Raises Malformed, Invalid, TooLarge, NotGranted, TopicsOnly."""
        try:
            posted = parse(caller, _HEADERS, events, id_of=id_of, most=MOST_EVENTS)
        except Invalid:
            check(request)
            raise
        check_granted(caller, posted.events)
        return posted

    async def _publish_slowly(
        self, asked: _Asked, caller: ApiKey | Grant, events: bytes, repeated: Repeatable | None
    ) -> None:
        """A long one: others have their turns of the event loop meanwhile."""
        id_of = None if repeated is None else repeated.event_id
        try:
            posted = await parse_in_turns(caller, _HEADERS, events, id_of=id_of, most=MOST_EVENTS)
            check_granted(caller, posted.events)
        except Exception as error:
            self._end(asked, error)
            return
        if repeated is None:
            self._start(asked, posted)
        else:
            await self._publish_once(asked, posted, repeated)

    # Publishing

    def _ask(self, request: Request) -> _Asked:
        asked = _Asked(request)
        self._asked.append(asked)
        self._unbegun.append(asked)
        return asked

    def _start(self, asked: _Asked, posted: Posted) -> None:
        on_end = partial(self._on_end, asked, posted)
        asked.start = partial(self._publishing.publisher.begin, posted, on_end)
        self._begin_in_order()

    async def _publish_once(self, asked: _Asked, posted: Posted, repeated: Repeatable) -> None:
        async def publish(deadline: Deadline) -> list[int]:
            ended: asyncio.Future[list[int] | Exception] = asyncio.get_running_loop().create_future()
            begin = self._publishing.publisher.begin
            asked.start = partial(begin, posted, partial(_set, ended), deadline=deadline)
            self._begin_in_order()
            result = await ended
            if isinstance(result, Exception):
                raise result
            return result

        try:
            counts, _ = await self._publishing.publish_once(posted, repeated, publish=publish)
        except Exception as error:
            self._end(asked, error)
        else:
            self._on_end(asked, posted, counts)

    def _begin_in_order(self) -> None:
        """Begins those that can, up to the first one that waits."""
        unbegun = self._unbegun
        while unbegun and (unbegun[0].start is not None or unbegun[0].outcome is not None):
            first = unbegun.pop(0)
            if first.start is not None:
                first.start()

    def _on_end(self, asked: _Asked, posted: Posted, result: list[int] | Exception) -> None:
        if isinstance(result, Exception):
            self._end(asked, result)
        else:
            assert asked.request.ref is not None
            self._end(asked, replies.published(asked.request.ref, published_events(posted, result)))

    def _end(self, asked: _Asked, outcome: bytes | Exception) -> None:
        asked.outcome = outcome
        if asked.start is None:
            # It was refused, or is a repetition: those behind it wait for nothing more.
            self._begin_in_order()
        if self._asked and self._asked[0] is asked and not self._is_answering:
            self._is_answering = True
            # Not at once: what ends in the same turn is answered in the same write.
            self.socket.edge.event_loop.call_soon(self._answer)

    def _answer(self) -> None:
        self._is_answering = False
        answers: list[tuple[Request | Refused, bytes | Exception]] = []
        for asked in self._asked:
            if asked.outcome is None:
                break
            answers.append((asked.request, _in_the_frame(asked.outcome)))
        del self._asked[: len(answers)]
        self.socket.answer_all(answers)
        if self._answered is not None and not self._asked and not self._answered.done():
            self._answered.set_result(None)

    # As a part

    def on_refreshed(self) -> None:
        """What was taken by the former token is published."""

    async def drain(self) -> None:
        if self._asked:
            self._answered = self.socket.edge.event_loop.create_future()
            await self._answered

    async def end(self) -> None:
        """What was taken is published, and not answered."""


def _set(ended: asyncio.Future[list[int] | Exception], result: list[int] | Exception) -> None:
    if not ended.done():
        ended.set_result(result)


def _in_background(work: Coroutine[None, None, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def _in_the_frame(outcome: bytes | Exception) -> bytes | Exception:
    """An error names the field as the frame has it; that of a body has none before the array."""
    match outcome:
        case Refused():
            return outcome
        case Invalid(fields=[(str() as field, message)]) if field.startswith("["):
            return type(outcome)(message, field=_EVENTS + field)
        case KeyIsRunning():
            message = "the request with this key is still running; repeat it to get its answer"
            return Refusal(ErrorCode.CONFLICT, f"{_KEY}: {message}", retry_after_s=_RETRY_S)
        case KeyOfAnother():
            return Refusal(ErrorCode.INVALID, f"{_KEY}: the key belongs to another request; use a new one")
    return outcome
