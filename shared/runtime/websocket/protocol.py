"""One WebSocket connection for an ASGI application, on the pure protocol of `websockets`.

- The application sends its own pings: the pongs prove what the client has read.
- A write never waits for a slow reader. The application bounds what is under way, and `websocket.abort` drops
  a connection whose buffer never drains, which a close cannot.
- After our own close frame the application still receives pongs, until the client's close frame.
- Reading pauses after each message until the application has received it.
- A turn of the event loop parses only a share of what a client has sent. Reading pauses until the rest had
  its turns, and for longer beyond `_FRAMES_PER_S`: TCP slows the client down.

Instead of `websocket.send` the application uses the `Control` in `scope["extensions"]["websocket.control"]`.

A process holds thousands of idle connections, so this module keeps little memory for each.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypedDict, cast

from starlette.types import ASGIApp, Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from shared.runtime.http.responses import internal_error
from shared.runtime.send_queue import unread_bytes
from shared.runtime.websocket.upgrade import Headers, Rejection, accept_response, rejection_response, response

logger = logging.getLogger(__name__)

# A client that pings without reading would fill our memory with pongs.
_UNSENT_PONGS_LIMIT_BYTES = 64 * 1024
# One connection's share of a turn. A slice has at most 21 frames, since the shortest has 6 bytes.
_FRAMES_PER_TURN = 32
_BYTES_PER_TURN = 16 * 1024
_SLICE_BYTES = 128
# The rate of a client's frames, without its pongs to our pings.
_FRAMES_PER_S = 100
_BURST_FRAMES = 1000
# A client beyond its rate is read this often, and not for each frame.
_RATE_PAUSE_S = 0.2
_FRAGMENT_LIMIT = 256
_CLOSE_LIMIT_S = 5.0
# First bytes of frames (RFC 6455, 5.2).
_TEXT = 0x81
_PING = 0x89
_PING_OF_8_BYTES = b"\x89\x08"
_PONG_OF_8_BYTES = b"\x8a\x88"
_MASK_BYTES = 4
_INTERNAL_ERROR = Rejection(500, internal_error().detail)
# The library logs each connection at INFO and below.
_library_logger = logging.getLogger("uvicorn.error")


class Control(TypedDict):
    """What an application can do with its WebSocket besides ASGI messages.

    `unread_bytes`: the written bytes that the peer's kernel has not acknowledged. `last_ping_s`: the loop's
    time of the client's last ping. `write` writes text frames, then a ping if one is given, in one write; it
    raises OSError when the socket is closed. `hear_pongs` registers a function that receives the payload of
    the pong to the newest ping, once.
    """

    unread_bytes: Callable[[], int]
    last_ping_s: Callable[[], float]
    write: Callable[[Sequence[bytes], bytes | None], None]
    hear_pongs: Callable[[Callable[[bytes], None]], None]


class SocketProtocol(asyncio.Protocol):
    """One WebSocket connection, from a valid upgrade request to its end."""

    __slots__ = (
        "_close_sent",
        "_close_timer",
        "_conn",
        "_fragments",
        "_frames_until_s",
        "_headers",
        "_inbox",
        "_is_text",
        "_last_ping_s",
        "_loop",
        "_lost",
        "_message_waits",
        "_on_pong",
        "_partial_bytes",
        "_pending_ping",
        "_pongs_due",
        "_reader",
        "_reading_paused",
        "_refusal",
        "_responded",
        "_server_state",
        "_transport",
        "_turn_is_due",
        "_unparsed",
        "_unsent_pongs_bytes",
    )

    def __init__(
        self, config: Config, server_state: ServerState, transport: asyncio.Transport, headers: Headers
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._server_state = server_state
        self._transport = transport
        self._headers = headers
        self._conn = Protocol(SERVER, max_size=config.ws_max_size, logger=_library_logger)
        self._inbox: list[Message] = [{"type": "websocket.connect"}]
        self._reader: asyncio.Future[None] | None = None
        # A message waits for the application.
        self._message_waits = False
        # A callback of the event loop will parse the next share.
        self._turn_is_due = False
        self._reading_paused = False
        self._responded = self._close_sent = self._lost = False
        self._refusal: tuple[int, Headers, bytes] | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._pending_ping: bytes | None = None
        self._last_ping_s = 0.0
        self._on_pong: Callable[[bytes], None] | None = None
        # Our pings without a pong. Their pongs do not count for the rate: they come as fast as we write.
        self._pongs_due = 0
        self._unsent_pongs_bytes = 0
        # What has arrived and is not parsed yet.
        self._unparsed = b""
        # The same, and what the library has of the next frame.
        self._partial_bytes = 0
        # When the frames so far would all have come, if they came at the rate.
        self._frames_until_s = 0.0
        self._fragments: list[bytes] | None = None
        self._is_text = False
        server_state.connections.add(self)  # type: ignore[arg-type]  # typed for its own classes

    def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Hands the handshake to the application, in a task of its own."""
        control: Control = {
            "unread_bytes": self._unread_bytes,
            "last_ping_s": self._get_last_ping_s,
            "write": self._write_frames,
            "hear_pongs": self._register_pong_handler,
        }
        scope["extensions"] = {"websocket.http.response": {}, "websocket.control": control}
        task = self._loop.create_task(cast(Coroutine[Any, Any, None], app(scope, self.receive, self.send)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._server_state.tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not isinstance(error, ClientDisconnected) and (error or not self._responded):
            logger.error("socket.failed", exc_info=error)
        self._fail_handshake()
        if self._close_timer is None:
            self._transport.close()

    # From the peer

    def data_received(self, data: bytes) -> None:
        if self._pongs_due and not self._partial_bytes and (payload := _pong_of_8_bytes(data)) is not None:
            self._pongs_due -= 1
            if not self._transport.is_closing():
                self._receive_pong(payload)
            return
        self._partial_bytes += len(data)
        self._unparsed += data
        if not self._message_waits and not self._turn_is_due:
            self._parse_share()

    def _parse_share(self) -> None:
        """Parses what one turn of the event loop may spend on this connection, and plans the next turn."""
        data, end, frames = self._unparsed, 0, 0
        limit = min(len(data), _BYTES_PER_TURN)
        while end < limit and frames < _FRAMES_PER_TURN and not self._message_waits:
            frames += self._parse(data[end : end + _SLICE_BYTES])
            end += _SLICE_BYTES
            if self._conn.parser_exc is not None:
                self._unparsed = b""
                return
        self._unparsed = data[end:]
        self._write()
        if self._transport.is_closing():
            self._unparsed = b""
            return
        now_s = self._loop.time()
        self._frames_until_s = max(self._frames_until_s, now_s) + frames / _FRAMES_PER_S
        over_s = self._frames_until_s - now_s - _BURST_FRAMES / _FRAMES_PER_S
        if over_s > 0:
            self._turn_is_due = True
            self._loop.call_later(over_s + _RATE_PAUSE_S, self._on_turn)
        self._plan_reading()

    def _parse(self, data: bytes) -> int:
        """Parses a slice. Returns the number of frames that count for the rate."""
        self._conn.receive_data(data)
        if self._conn.parser_exc is not None:
            self._fail_protocol()
            return 0
        frames = 0
        for event in self._conn.events_received():
            # Other events belong to the handshake, which is complete.
            if isinstance(event, Frame):
                self._partial_bytes -= _frame_bytes(len(event.data))
                if event.opcode is Opcode.PONG and self._pongs_due > 0:
                    self._pongs_due -= 1
                else:
                    frames += 1
                if not self._transport.is_closing():
                    self._receive_frame(event)
        return frames

    def _on_turn(self) -> None:
        self._turn_is_due = False
        if self._lost or self._transport.is_closing():
            self._unparsed = b""
        elif not self._message_waits:
            self._parse_share()

    def _plan_reading(self) -> None:
        """Reads on, unless the application or a later turn comes first."""
        if self._unparsed and not self._message_waits and not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._on_turn)
        pauses = self._message_waits or self._turn_is_due
        if pauses == self._reading_paused:
            return
        self._reading_paused = pauses
        if pauses:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

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
        # Once for each ping: a client could send any number of pongs.
        if payload == self._pending_ping and self._on_pong is not None:
            self._pending_ping = None
            self._on_pong(payload)

    def _receive_close(self) -> None:
        if self._close_sent:
            self._cancel_close_timer()
        elif not self._transport.is_closing():
            assert self._conn.close_rcvd is not None
            code, reason = self._conn.close_rcvd.code, self._conn.close_rcvd.reason
            self._put({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._write()
        # Closes once the buffer is empty. The timer ends a client that reads no more.
        self._hang_up()

    def _receive_data(self, data: bytes, *, whole: bool) -> None:
        assert self._fragments is not None
        if len(self._fragments) >= _FRAGMENT_LIMIT:
            self._conn.fail(1009, "too many fragments")
            self._fail_protocol()
            return
        self._fragments.append(data)
        if not whole:
            return
        message, self._fragments = b"".join(self._fragments), None
        if self._close_sent:
            # The application has closed; only the peer's close frame matters now.
            return
        try:
            content = {"text": message.decode()} if self._is_text else {"bytes": message}
        except UnicodeDecodeError:
            self._conn.fail(1007)
            self._fail_protocol()
            return
        self._put({"type": "websocket.receive", **content})
        self._message_waits = True

    def eof_received(self) -> None:
        self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._put({"type": "websocket.disconnect", "code": 1005 if self._responded else 1006})
        self._server_state.connections.discard(self)
        self._pending_ping = self._on_pong = None
        self._responded = self._lost = True
        self._cancel_close_timer()
        # Break the reference cycle with the parser's generator, which would wait for the garbage collector.
        self._conn.parser.close()
        if exc is None:
            self._transport.close()

    def shutdown(self) -> None:
        """The process ends. The application has closed its sockets; the rest are half open or half closed."""
        if self._responded:
            self._transport.abort()
        else:
            self._fail_handshake()
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
            self._transport.abort()
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
        self._write()

    def _register_pong_handler(self, on_pong: Callable[[bytes], None]) -> None:
        self._on_pong = on_pong

    def _write_frames(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        # No frame may precede the response to the handshake.
        if self._lost or self._close_sent or not self._responded or self._transport.is_closing():
            raise ClientDisconnected
        # Not by the library, which spends several times as much on a frame.
        parts: list[bytes] = []
        for text in texts:
            parts += (_frame_head(_TEXT, len(text)), text)
        if ping is not None:
            parts += (_PING_OF_8_BYTES if len(ping) == 8 else _frame_head(_PING, len(ping)), ping)
            self._pending_ping = ping
            self._pongs_due += 1
        self._transport.write(b"".join(parts))

    def _send_handshake(self, kind: str, message: Message) -> None:
        """Sends the upgrade, or the application's HTTP response in its place."""
        if kind == "websocket.accept":
            more = [*self._server_state.default_headers, *message.get("headers", ())]
            if message.get("subprotocol"):
                more.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
            self._transport.write(accept_response(self._headers, more))
            self._responded, self._headers = True, ()
        elif kind == "websocket.http.response.start" and self._refusal is None:
            self._refusal = message["status"], message.get("headers", ()), b""
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            status, headers, first_part = self._refusal
            body = first_part + message.get("body", b"")
            self._refusal = status, headers, body
            if not message.get("more_body"):
                self._refuse(response(status, [*self._server_state.default_headers, *headers], body))
        elif kind == "websocket.close" and self._refusal is None:
            self._refuse(response(403, self._server_state.default_headers, b""))
        else:
            raise RuntimeError(f"message before the handshake is complete: {kind}")

    def _refuse(self, http_response: bytes) -> None:
        self._responded = self._close_sent = True
        self._put({"type": "websocket.disconnect", "code": 1006})
        self._transport.write(http_response)
        self._transport.close()

    def _fail_handshake(self) -> None:
        """The application ends without a response to the handshake."""
        if not self._responded and not self._transport.is_closing():
            self._refuse(rejection_response(_INTERNAL_ERROR, self._headers))

    # Helpers

    def _check_open(self) -> None:
        if self._lost or self._close_sent or self._transport.is_closing():
            raise ClientDisconnected

    def _put(self, message: Message) -> None:
        self._inbox.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _write(self) -> None:
        """Writes what the library responds: pongs and close frames."""
        data = b"".join(self._conn.data_to_send())
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
        self._write()
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

    def _unread_bytes(self) -> int:
        return unread_bytes(self._transport)

    def _get_last_ping_s(self) -> float:
        return self._last_ping_s


def _frame_head(first_byte: int, length: int) -> bytes:
    """What precedes the payload of a server's frame."""
    if length < 126:
        return bytes((first_byte, length))
    if length < 65_536:
        return struct.pack("!BBH", first_byte, 126, length)
    return struct.pack("!BBQ", first_byte, 127, length)


def _frame_bytes(length: int) -> int:
    """The size of a client's frame, which is masked, with a payload of this length in the shortest form."""
    extended = 0 if length < 126 else 2 if length < 65_536 else 8
    return 2 + extended + _MASK_BYTES + length


def _pong_of_8_bytes(data: bytes) -> bytes | None:
    """The payload, if these bytes are one client's pong with 8 bytes of it and nothing else."""
    if len(data) != 14 or data[:2] != _PONG_OF_8_BYTES:
        return None
    mask = int.from_bytes(data[2:6] * 2, "big")
    return (mask ^ int.from_bytes(data[6:], "big")).to_bytes(8, "big")
