"""One response of `GET /v1/stream`: a reader of up to 16 topics, as the edge holds it.

Events are written by callbacks of the hub, without a task. What the client does not read stays in the
transport's buffer, which refers to the bytes that all readers share. A reader for which too much waits there
is sent an end, and comes back with its last id: nothing that it does delays the others.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from services.socket_edge.held import HeldConnection
from services.socket_edge.streams.stream_buffer import StreamBuffer
from services.socket_edge.streams.stream_frames import frames_for
from shared import telemetry
from shared.model.channels import CloseReason
from shared.model.streams import Mark, Start
from shared.runtime.http.streamed import StreamedResponse
from shared.wire import sse

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge
    from services.socket_edge.streams.topic_reader import Delivery, Started
    from services.socket_edge.streams.topic_reading import Reading

logger = logging.getLogger(__name__)

STREAM = "stream"
# A client that has not read the end of its response by then is dropped.
ENDING_S = 30.0
# A reader with many small events waiting has room when it has read half of them; nothing says when.
_ROOM_S = 0.05
_SENT = telemetry.sent.series({"dialect": "sse"})


class StreamReader(HeldConnection):
    """As the hub's `TopicReader` it takes events; as a connection it ends with its credential."""

    kind = STREAM

    def __init__(
        self,
        edge: "Edge",
        id: str,
        *,
        account_id: str,
        since: Mapping[str, Mark | Start],
        response: StreamedResponse,
        abort: Callable[[], None],
    ) -> None:
        super().__init__(edge, id)
        self.topics = tuple(since)
        self.account_id = account_id
        self.sent = 0
        self._since = since
        self._response = response
        self._abort = abort
        self._readings: list[Reading] = []
        self._frames = frames_for(self.topics, account_id=account_id, is_chunked=response.is_chunked)
        self._buffer = StreamBuffer(edge.settings, response)
        self._has_begun = False
        self._ending: asyncio.Task[None] | None = None
        self._due_s = edge.event_loop.time() + edge.settings.sse_heartbeat_s
        # What the client's kernel had acknowledged when it last acknowledged something, and when that was.
        self._read = 0
        self._read_s = edge.event_loop.time()

    # As a reader of topics

    def on_start(self, started: "Started") -> None:
        if self.close_reason is None:
            self._response.write(self._frames.started(started))

    def on_events(self, delivery: "Delivery") -> None:
        if self.close_reason is not None:
            return
        if self._buffer.is_full():
            telemetry.stream_overflows.add(1)
            self.end(CloseReason.TOO_SLOW)
            return
        try:
            framed = self._frames.delivered(delivery)
        except Exception:
            # Without an end the client would miss the events, and never know.
            logger.exception("stream.not-encoded", extra={"facts": {"topic": delivery.topic}})
            self.end(CloseReason.UNEXPECTED)
            return
        if framed:
            count = delivery.count
            self.sent += count
            _SENT.total += count
            waiting = self._response.write(framed)
            self._buffer.note(waiting, size_bytes=len(framed), events=count)

    async def until_room(self) -> bool:
        while self.close_reason is None and self._response.is_open:
            if self._buffer.has_room():
                return True
            await self._response.until_room()
            if self._buffer.forget_sent():
                await asyncio.sleep(_ROOM_S)
        return False

    # As a response

    def begin(self, *, retry_s: float) -> None:
        """The head is sent: from now on the response is written by callbacks, and ends by `end`."""
        settings, self._has_begun = self._edge.settings, True
        if not self._response.detach(self._on_lost):
            self._on_lost()
        if self.close_reason is not None:
            self._finish(self.close_reason)
            return
        self._response.bound(min(64 * 1024, settings.stream_buffer_bytes // 2))
        self._response.write(self._frames.framed(sse.retry(round(retry_s * 1000))))
        for topic, since in self._since.items():
            self._readings.append(self._edge.topics.join(self.account_id, topic, self, since=since))

    def end(self, reason: CloseReason) -> None:
        """Takes no more events, says why, and ends the response."""
        if self.close_reason is None:
            self.close_reason = reason
            self._leave()
            if self._has_begun:
                self._finish(reason)

    def _on_lost(self) -> None:
        self.end(CloseReason.CLIENT_GONE)

    def _finish(self, reason: CloseReason) -> None:
        if reason is CloseReason.STALLED:
            self._abort()
        if not self._response.is_open:
            self._remove()
            return
        last = sse.overflow() if reason is CloseReason.TOO_SLOW else sse.end(reason)
        self._response.write(self._frames.framed(last))
        self._ending = self._edge.event_loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            await self._response.end(within_s=ENDING_S)
        finally:
            self._remove()

    def _remove(self) -> None:
        if self.is_held:
            self._edge.remove(self)
            telemetry.streams_closed.add(1, {"reason": self.facts["reason"]})
            logger.info("stream.closed", extra={"facts": self.facts})

    # As a connection

    async def close(self, reason: CloseReason) -> None:
        self.end(reason)

    async def on_unbound(self, topics: Collection[str]) -> None:
        """These are no longer bound to its API key."""
        self.end(CloseReason.UNBOUND)

    async def abort(self) -> None:
        self._abort()

    def wake(self) -> None:
        if self.token is None:
            self._edge.stream_rights.check_again(self)
        else:
            self._edge.tokens.check([self])

    @property
    def next_check_s(self) -> float:
        return min(self._due_s, super().next_check_s)

    async def check(self, now_s: float) -> None:
        await super().check(now_s)
        if now_s < self._due_s:
            return
        if self.close_reason is not None:
            self._due_s = math.inf
            return
        self._due_s = now_s + self._edge.settings.sse_heartbeat_s
        if self._has_stalled(now_s):
            self.end(CloseReason.STALLED)
        else:
            self._response.write(self._frames.quiet())

    def _has_stalled(self, now_s: float) -> bool:
        """Has the client's kernel acknowledged nothing for the time of a pong, while something waits for it?

        A client that has vanished sends no end: without this it would be held until TCP gives up.
        """
        read = self._response.read_bytes()
        if read is None:
            return False
        if read > self._read or read == self._response.written_bytes:
            self._read, self._read_s = read, now_s
        return now_s - self._read_s > self._edge.liveness.ping_timeout_s

    async def finish(self) -> None:
        self._leave()

    def on_removed(self) -> None:
        self._leave()

    def _leave(self) -> None:
        readings, self._readings = self._readings, []
        for reading in readings:
            reading.leave()

    @property
    def facts(self) -> dict[str, str | int]:
        """For the log line at its end."""
        return {
            "stream": self.id,
            "account": self.account_id,
            "topics": len(self.topics),
            "sent": self.sent,
            "reason": self.close_reason or CloseReason.UNEXPECTED,
        }
