"""One WebSocket connection: websockets' pure protocol, on a transport, as an ASGI application sees it.

- Pongs reach the application (`websocket.pong`), which sends its own pings (`websocket.ping`): its counters
  in them prove what the client has read.
- Nothing waits for a slow reader: what is under way is bounded by the application, and `websocket.abort`
  drops a connection whose buffer never drains, which a close cannot.
- After our own close frame the application still hears pongs, until the client's close frame ends it.
- Nothing is read behind a text that the application has not asked for yet.

`websocket.send` takes its text as bytes (`utf8`). `scope["extensions"]["websocket.control"]` is a `Control`.

There may be thousands that say nothing: what an idle one keeps in memory is what this file is careful about.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypedDict, cast

from starlette.types import ASGIApp, Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from shared.runtime.send_queue import unread_bytes
from shared.runtime.websocket.upgrade import Fault, Headers, accepted, answer, refused

logger = logging.getLogger(__name__)

# A client that pings without reading would make us hoard our pongs.
_PONG_BUFFER_LIMIT = 4 * 1024 * 1024
_FRAGMENT_LIMIT = 256
_SHUTDOWN_S = 5.0
_FAILED = Fault(500, "something went wrong here; it was logged")
# At INFO and below the library would tell of each connection.
_library_logger = logging.getLogger("uvicorn.error")


class Control(TypedDict):
    """What else an application may ask of its WebSocket, and have it do.

    `unread_bytes`: how many bytes has the peer's machine not confirmed? `last_ping_s`: when did it last send
    a ping, by the loop's time? `write` writes text frames, and then a ping if one is given, in one go; it
    raises OSError when the socket is closed. `hear_pongs` says who is called with the payload of each pong,
    at once and instead of the message `websocket.pong`.
    """

    unread_bytes: Callable[[], int]
    last_ping_s: Callable[[], float]
    write: Callable[[Sequence[bytes], bytes | None], None]
    hear_pongs: Callable[[Callable[[bytes], None]], None]


class SocketProtocol(asyncio.Protocol):
    """One WebSocket connection, from an upgrade request that is in order to its end."""

    __slots__ = (
        "_answered",
        "_close_sent",
        "_close_timer",
        "_conn",
        "_fragments",
        "_headers",
        "_heard_pong",
        "_inbox",
        "_is_text",
        "_last_ping_s",
        "_loop",
        "_lost",
        "_pending_ping",
        "_reader",
        "_reading_paused",
        "_refusal",
        "_server_state",
        "_transport",
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
        self._reading_paused = False
        self._answered = self._close_sent = self._lost = False
        self._refusal: tuple[int, Headers, bytes] | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._pending_ping: bytes | None = None
        self._last_ping_s = 0.0
        self._heard_pong: Callable[[bytes], None] | None = None
        self._fragments: list[bytes] | None = None
        self._is_text = False
        server_state.connections.add(self)  # type: ignore[arg-type]  # it knows its own kinds only

    def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Hands the handshake to the application, in a task of its own."""
        control: Control = {
            "unread_bytes": self._unread_bytes,
            "last_ping_s": self._heard_ping_s,
            "write": self._write_frames,
            "hear_pongs": self._hear_pongs,
        }
        scope["extensions"] = {"websocket.http.response": {}, "websocket.control": control}
        task = self._loop.create_task(cast(Coroutine[Any, Any, None], app(scope, self.receive, self.send)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._is_over)

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._server_state.tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not isinstance(error, ClientDisconnected) and (error or not self._answered):
            logger.error("socket.failed", exc_info=error)
        self._fail_handshake()
        if self._close_timer is None:
            self._transport.close()

    # What comes from the peer

    def data_received(self, data: bytes) -> None:
        self._conn.receive_data(data)
        if self._conn.parser_exc is not None:
            self._end_for_a_fault()
            return
        for event in self._conn.events_received():
            # Requests and responses are of handshakes, which are not this object's.
            if isinstance(event, Frame) and not self._transport.is_closing():
                self._hear(event)

    def _hear(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.PONG:
                self._hear_pong(bytes(frame.data))
            case Opcode.PING:
                self._hear_ping()
            case Opcode.CLOSE:
                self._hear_close()
            case Opcode.CONT:
                self._hear_more(bytes(frame.data), whole=frame.fin)
            case _:
                self._is_text = frame.opcode is Opcode.TEXT
                self._fragments = []
                self._hear_more(bytes(frame.data), whole=frame.fin)

    def _hear_pong(self, payload: bytes) -> None:
        # One message for each ping, whatever a client sends: nobody may be reading any more.
        if payload == self._pending_ping:
            self._pending_ping = None
            if self._heard_pong is not None:
                self._heard_pong(payload)
                return
            self._tell({"type": "websocket.pong", "bytes": payload})

    def _hear_ping(self) -> None:
        if self._transport.get_write_buffer_size() > _PONG_BUFFER_LIMIT:
            self._transport.abort()
            return
        self._last_ping_s = self._loop.time()
        self._write()

    def _hear_close(self) -> None:
        if self._close_sent:
            self._cancel_close_timer()
        elif not self._transport.is_closing():
            assert self._conn.close_rcvd is not None
            code, reason = self._conn.close_rcvd.code, self._conn.close_rcvd.reason
            self._tell({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._write()
        # It closes by itself once the buffer is empty; a client that reads no more must not keep it.
        self._hang_up()

    def _hear_more(self, data: bytes, *, whole: bool) -> None:
        assert self._fragments is not None
        if len(self._fragments) >= _FRAGMENT_LIMIT:
            self._conn.fail(1009, "too many fragments")
            self._end_for_a_fault()
            return
        self._fragments.append(data)
        if not whole:
            return
        message, self._fragments = b"".join(self._fragments), None
        if self._close_sent:
            # The application is past its close: reading goes on until the peer's own.
            return
        try:
            told = {"text": message.decode()} if self._is_text else {"bytes": message}
        except UnicodeDecodeError:
            self._conn.fail(1007)
            self._end_for_a_fault()
            return
        self._tell({"type": "websocket.receive", **told})
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell({"type": "websocket.disconnect", "code": 1005 if self._answered else 1006})
        self._server_state.connections.discard(self)
        self._pending_ping = self._heard_pong = None
        self._answered = self._lost = True
        self._cancel_close_timer()
        # Else its frame and the connection would keep each other until the collector comes.
        self._conn.parser.close()
        if exc is None:
            self._transport.close()

    def shutdown(self) -> None:
        """The process ends. Every socket has had its goodbye; what is left is on its way out or in."""
        if self._answered:
            self._transport.abort()
        else:
            self._fail_handshake()
            self._transport.close()

    # What the application says and hears

    async def receive(self) -> Message:
        while not self._inbox:
            self._reader = self._loop.create_future()
            await self._reader
        message = self._inbox.pop(0)
        if self._reading_paused and not self._inbox:
            self._read_on()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.abort":
            self._transport.abort()
        elif self._lost or self._close_sent or self._transport.is_closing():
            raise ClientDisconnected
        elif self._answered:
            try:
                self._say(kind, message)
            except InvalidState:
                raise ClientDisconnected from None
        else:
            self._answer(kind, message)

    def _say(self, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            self._conn.send_text(message["utf8"])
        elif kind == "websocket.ping":
            self._conn.send_ping(message["bytes"])
            self._pending_ping = message["bytes"]
        elif kind == "websocket.close":
            self._conn.send_close(message.get("code", 1000), message.get("reason", ""))
            self._close_sent = True
            if self._reading_paused:
                self._read_on()
            self._close_timer = self._loop.call_later(_SHUTDOWN_S, self._transport.abort)
        else:
            raise RuntimeError(f"no such message: {kind}")
        self._write()

    def _hear_pongs(self, heard: Callable[[bytes], None]) -> None:
        self._heard_pong = heard

    def _write_frames(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        if self._lost or self._close_sent or self._transport.is_closing():
            raise ClientDisconnected
        try:
            for text in texts:
                self._conn.send_text(text)
            if ping is not None:
                self._conn.send_ping(ping)
                self._pending_ping = ping
        except InvalidState:
            raise ClientDisconnected from None
        self._write()

    def _answer(self, kind: str, message: Message) -> None:
        """The handshake's answer: the upgrade, or a refusal with whatever the application says."""
        if kind == "websocket.accept":
            more = [*self._server_state.default_headers, *message.get("headers", ())]
            if message.get("subprotocol"):
                more.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
            self._transport.write(accepted(self._headers, more))
            self._answered, self._headers = True, ()
        elif kind == "websocket.http.response.start" and self._refusal is None:
            self._refusal = message["status"], message.get("headers", ()), b""
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            status, headers, begun = self._refusal
            body = begun + message.get("body", b"")
            self._refusal = status, headers, body
            if not message.get("more_body"):
                self._refuse(answer(status, [*self._server_state.default_headers, *headers], body))
        elif kind == "websocket.close" and self._refusal is None:
            self._refuse(answer(403, self._server_state.default_headers, b""))
        else:
            raise RuntimeError(f"no such message before the handshake is answered: {kind}")

    def _refuse(self, whole_answer: bytes) -> None:
        self._answered = self._close_sent = True
        self._tell({"type": "websocket.disconnect", "code": 1006})
        self._transport.write(whole_answer)
        self._transport.close()

    def _fail_handshake(self) -> None:
        """The application has ended without an answer, or is about to."""
        if not self._answered and not self._transport.is_closing():
            self._refuse(refused(_FAILED, self._headers))

    # How both come about

    def _tell(self, message: Message) -> None:
        self._inbox.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _read_on(self) -> None:
        self._reading_paused = False
        self._transport.resume_reading()

    def _write(self) -> None:
        self._transport.write(b"".join(self._conn.data_to_send()))

    def _end_for_a_fault(self) -> None:
        self._tell({"type": "websocket.disconnect", "code": 1006, "reason": "broke the protocol"})
        self._write()
        self._close_sent = True
        self._hang_up()

    def _hang_up(self) -> None:
        self._transport.close()
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(_SHUTDOWN_S, self._transport.abort)

    def _cancel_close_timer(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None

    def _unread_bytes(self) -> int:
        return unread_bytes(self._transport)

    def _heard_ping_s(self) -> float:
        return self._last_ping_s
