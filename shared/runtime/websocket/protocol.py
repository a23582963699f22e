"""One WebSocket connection for an ASGI application, on the pure protocol of `websockets`.

- The application sends its own pings: the pongs prove what the client has read.
- A write never waits for a slow reader. The application bounds what is under way, and `websocket.abort` drops
  a connection whose buffer never drains, which a close cannot.
- After our own close frame the application still receives pongs, until the client's close frame.
- The client's close frame is answered when the application has ended: a client that waits for the answer and
  reconnects must find its pongs acknowledged. A pong behind its close frame counts for nothing: a library
  that is closing answers pings, and drops the frames before them.
- Reading pauses after each message until the application has received it.
- A turn of the event loop parses only a share of what a client has sent (turns.py).

Instead of `websocket.send` the application uses the `Control` in `scope["extensions"]["websocket.control"]`.

A process holds thousands of idle connections, so this module keeps little memory for each.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp, Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode

from shared.runtime.send_queue import unread_bytes
from shared.runtime.websocket import upgrade
from shared.runtime.websocket.control import Control
from shared.runtime.websocket.frames import encoded, frame_bytes, pong_of_8_bytes
from shared.runtime.websocket.messages import MessageProtocol
from shared.runtime.websocket.upgrade import Headers, Rejection

logger = logging.getLogger(__name__)

# A client that pings without reading would fill our memory with pongs.
_UNSENT_PONGS_LIMIT_BYTES = 64 * 1024
_PING_OR_PONG = (Opcode.PING, Opcode.PONG)
_CLOSE_LIMIT_S = 5.0
# The application may take so long to end, before the client's close frame is answered without it.
_END_LIMIT_S = 1.0
# By close code, for a close before the handshake is complete. Other codes get a 403, as ASGI has it.
_REJECTIONS = {1001: upgrade.DRAINING, 1011: upgrade.UNAVAILABLE, 1012: upgrade.DRAINING}


class SocketProtocol(MessageProtocol):
    """One WebSocket connection, from a valid upgrade request to its end."""

    __slots__ = (
        "_close_timer",
        "_headers",
        "_inbox",
        "_is_closed_by_peer",
        "_last_ping_s",
        "_on_control_frame",
        "_on_pong",
        "_on_room",
        "_pings",
        "_pongs_due",
        "_reader",
        "_refusal",
        "_responded",
        "_server_state",
        "_unsent_pongs_bytes",
    )

    def __init__(
        self, config: Config, server_state: ServerState, transport: asyncio.Transport, headers: Headers
    ) -> None:
        super().__init__(transport)
        self._server_state = server_state
        self._headers = headers
        self._begin_messages(config.ws_max_size)
        self._inbox: list[Message] = [{"type": "websocket.connect"}]
        self._reader: asyncio.Future[None] | None = None
        self._responded = False
        self._refusal: tuple[int, Headers, bytes] | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        # Our pings in flight that the application waits for, oldest first.
        self._pings: tuple[bytes, ...] = ()
        # Its close frame has come, and is not answered yet.
        self._is_closed_by_peer = False
        self._last_ping_s = 0.0
        self._on_pong: Callable[[bytes], None] | None = None
        self._on_control_frame: Callable[[int], None] | None = None
        self._on_room: Callable[[], None] | None = None
        # Our pings without a pong. Their pongs do not count for the rate: they come as fast as we write.
        self._pongs_due = self._unsent_pongs_bytes = 0
        server_state.connections.add(self)  # type: ignore[arg-type]  # typed for its own classes

    def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Hands the handshake to the application, in a task of its own."""
        control: Control = {
            "unread_bytes": partial(unread_bytes, self._transport),
            "last_ping_s": lambda: self._last_ping_s,
            "write": self._write_frames,
            "hear_pongs": self._register_pong_handler,
            "hear_control_frames": self._register_control_handler,
            "hear_messages": self._hear_messages,
            "hold_messages": self._hold_messages,
            "write_encoded": self._write_encoded,
            "buffered_bytes": self._transport.get_write_buffer_size,
            "hear_room": self._register_room_handler,
        }
        scope["extensions"] = {"websocket.http.response": {}, "websocket.control": control}
        task = self._loop.create_task(cast(Coroutine[Any, Any, None], app(scope, self.receive, self.send)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._server_state.tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        # The shutdown cancels a handshake that still waits for Redis, when its client has the 503.
        is_expected = isinstance(error, ClientDisconnected) or (task.cancelled() and self._close_sent)
        if not is_expected and (error or not self._responded):
            logger.error("socket.failed", exc_info=error)
        self._reject(upgrade.DRAINING if task.cancelled() else upgrade.INTERNAL_ERROR)
        if self._is_closed_by_peer:
            self._answer_close()
        elif self._close_timer is None:
            self._transport.close()

    # From the peer

    def data_received(self, data: bytes) -> None:
        if self._is_closed_by_peer:
            return
        if self._pongs_due and not self._partial_bytes and (payload := pong_of_8_bytes(data)) is not None:
            self._pongs_due -= 1
            if not self._transport.is_closing():
                self._receive_pong(payload)
            return
        self._partial_bytes += len(data)
        self._parse_in_turns(data)

    def _parse(self, data: bytes) -> int:
        """Parses a slice. Returns the number of frames that count for the rate."""
        if (text := self._plain_text_in(data)) is not None:
            self._partial_bytes -= len(data)
            return self._receive_text(text)
        conn, frames = self._conn, 0
        conn.receive_data(data)
        for event in conn.events_received():
            # Other events belong to the handshake, which is complete.
            if isinstance(event, Frame):
                self._partial_bytes -= frame_bytes(len(event.data))
                if event.opcode is Opcode.PONG and self._pongs_due > 0:
                    self._pongs_due -= 1
                else:
                    frames += 1
                    if self._on_control_frame is not None and event.opcode in _PING_OR_PONG:
                        self._on_control_frame(len(event.data))
                if not self._transport.is_closing():
                    self._receive_frame(event)
        # Pongs before the malformed frame have counted.
        if conn.parser_exc is not None and not self._transport.is_closing():
            self._fail_protocol()
        return frames

    def _receive_frame(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.PONG:
                self._receive_pong(bytes(frame.data))
            case Opcode.PING:
                # The library has the pong; it is written at the end of the share.
                self._last_ping_s = self._loop.time()
            case Opcode.CLOSE:
                self._receive_close()
            case Opcode.CONT:
                self._receive_data(bytes(frame.data), whole=frame.fin)
            case _:
                self._is_text = frame.opcode is Opcode.TEXT
                self._fragments = []
                self._receive_data(bytes(frame.data), whole=frame.fin)

    def _receive_pong(self, payload: bytes) -> None:
        # Once for each ping: a client could send any number of pongs. One stands for all pings before it.
        if payload in self._pings and self._on_pong is not None:
            self._pings = self._pings[self._pings.index(payload) + 1 :]
            self._on_pong(payload)

    def _receive_close(self) -> None:
        if self._close_sent:
            self._cancel_close_timer()
            # Closes once the buffer is empty. The timer ends a client that reads no more.
            self._hang_up()
            return
        assert self._conn.close_rcvd is not None
        code, reason = self._conn.close_rcvd.code, self._conn.close_rcvd.reason
        self._is_closed_by_peer = True
        self._close_timer = self._loop.call_later(_END_LIMIT_S, self._answer_close)
        self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _answer_close(self) -> None:
        """Answers the client's close frame, as the application has ended or takes too long."""
        self._is_closed_by_peer = False
        self._cancel_close_timer()
        self._close_sent = True
        self._end_share()
        self._hang_up()

    def eof_received(self) -> bool:
        # A client that has sent its close frame and its last byte still reads the answer.
        if not self._is_closed_by_peer:
            self._hang_up()
        return self._is_closed_by_peer

    def connection_lost(self, exc: Exception | None) -> None:
        self._put({"type": "websocket.disconnect", "code": 1005 if self._responded else 1006})
        self._server_state.connections.discard(self)
        self.resume_writing()
        self._on_pong = self._on_control_frame = self._on_message = self._on_room = None
        self._pings = ()
        self._is_closed_by_peer = False
        self._responded = self._lost = True
        self._cancel_close_timer()
        # Break the reference cycle with the parser's generator, which would wait for the garbage collector.
        if self._library is not None:
            self._library.parser.close()
        if exc is None:
            self._transport.close()

    def shutdown(self) -> None:
        """The process ends. The application has closed its sockets; the rest are half open or half closed."""
        if self._responded:
            self._transport.abort()
        else:
            self._reject(upgrade.DRAINING)
            self._transport.close()

    # To and from the application

    async def receive(self) -> Message:
        while not self._inbox:
            self._reader = self._loop.create_future()
            await self._reader
        message = self._inbox.pop(0)
        if self._message_waits and not self._inbox:
            self._message_waits = False
            self._plan_reading()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.abort":
            if self._responded:
                self._transport.abort()
            else:
                self._reject(upgrade.UNAVAILABLE)
            return
        self._check_open()
        if not self._responded:
            self._send_handshake(kind, message)
        elif kind == "websocket.close":
            self._send_close(message.get("code", 1000), message.get("reason", ""))
        else:
            raise RuntimeError(f"unknown message: {kind}")

    def _send_close(self, code: int, reason: str) -> None:
        try:
            self._conn.send_close(code, reason)
        except InvalidState:
            raise ClientDisconnected from None
        self._close_sent = True
        self._message_waits = False
        self._plan_reading()
        self._close_timer = self._loop.call_later(_CLOSE_LIMIT_S, self._transport.abort)
        self._end_share()

    def _register_pong_handler(self, on_pong: Callable[[bytes], None]) -> None:
        self._on_pong = on_pong

    def _register_control_handler(self, on_control_frame: Callable[[int], None] | None) -> None:
        self._on_control_frame = on_control_frame

    def _register_room_handler(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room

    def resume_writing(self) -> None:
        if self._on_room is not None:
            self._on_room()

    def _write_frames(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        self._write_encoded(encoded(texts, ping))
        if ping is not None:
            self._pings = (*self._pings, ping)
            self._pongs_due += 1

    def _write_encoded(self, frames: bytes) -> None:
        # No frame may precede the response to the handshake.
        if not self._responded:
            raise ClientDisconnected
        self._check_open()
        self._transport.write(frames)

    def _send_handshake(self, kind: str, message: Message) -> None:
        """Sends the upgrade, or the application's HTTP response in its place."""
        if kind == "websocket.accept":
            more = [*self._server_state.default_headers, *message.get("headers", ())]
            if message.get("subprotocol"):
                more.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
            self._transport.write(upgrade.accept_response(self._headers, more))
            self._responded, self._headers = True, ()
        elif kind == "websocket.http.response.start" and self._refusal is None:
            self._refusal = message["status"], message.get("headers", ()), b""
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            status, headers, first_part = self._refusal
            body = first_part + message.get("body", b"")
            self._refusal = status, headers, body
            if not message.get("more_body"):
                self._refuse(upgrade.response(status, [*self._server_state.default_headers, *headers], body))
        elif kind == "websocket.close" and self._refusal is None:
            if rejection := _REJECTIONS.get(message.get("code", 1000)):
                self._reject(rejection)
            else:
                self._refuse(upgrade.response(403, self._server_state.default_headers, b""))
        else:
            raise RuntimeError(f"message before the handshake is complete: {kind}")

    def _refuse(self, http_response: bytes) -> None:
        self._responded = self._close_sent = True
        self._put({"type": "websocket.disconnect", "code": 1006})
        self._transport.write(http_response)
        self._transport.close()
        # Nothing is left to shut down: an abort would drop the response before it is sent.
        self._server_state.connections.discard(self)

    def _reject(self, rejection: Rejection) -> None:
        """Responds to the handshake, unless the application has."""
        if not self._responded and not self._transport.is_closing():
            self._refuse(upgrade.rejection_response(rejection, self._headers))

    # Helpers

    def _check_open(self) -> None:
        if self._lost or self._close_sent or self._is_closed_by_peer or self._transport.is_closing():
            raise ClientDisconnected

    def _put(self, message: Message) -> None:
        self._inbox.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _end_share(self) -> None:
        """Writes what the library responds: pongs and close frames."""
        # Pongs to a client that has closed wait with the answer to its close frame.
        if self._library is None:
            return
        data = b"" if self._is_closed_by_peer else b"".join(self._library.data_to_send())
        if not data or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() == 0:
            self._unsent_pongs_bytes = 0
        self._unsent_pongs_bytes += len(data)
        if self._unsent_pongs_bytes > _UNSENT_PONGS_LIMIT_BYTES:
            self._transport.abort()
        else:
            self._transport.write(data)

    def _fail_protocol(self) -> None:
        self._put({"type": "websocket.disconnect", "code": 1006, "reason": "protocol error"})
        self._end_share()
        self._close_sent = True
        self._hang_up()

    def _hang_up(self) -> None:
        self._transport.close()
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(_CLOSE_LIMIT_S, self._transport.abort)

    def _cancel_close_timer(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
