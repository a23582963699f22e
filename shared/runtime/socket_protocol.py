"""uvicorn's sans-I/O WebSocket protocol, with what it keeps from the application.

- Pongs reach the application (`websocket.pong`), which sends its own pings (`websocket.ping`): its counters
  in them prove what the client has read.
- Nothing waits for a slow reader: what is under way is bounded by the application, and `websocket.abort`
  drops a connection whose buffer never drains, which a close cannot.
- After our own close frame the application still hears pongs, until the client's close frame ends it.
- A handshake that is refused before the application sees it gets our form of error.

`websocket.send` takes its text as bytes (`utf8`). `scope["extensions"]["websocket.control"]` is a `Control`.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypedDict

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, InvalidState, SecurityError
from websockets.frames import Frame
from websockets.http11 import Request

from shared.runtime.answers import REQUEST_ID, error_body, new_request_id
from shared.runtime.send_queue import unread_bytes

# A client that pings without reading would make us hoard our pongs.
_PONG_BUFFER_LIMIT = 4 * 1024 * 1024
_FRAGMENT_LIMIT = 256
_GOODBYE_S = 5.0


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


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = _GOODBYE_S
        self._last_ping_s = 0.0
        self._heard_pong: Callable[[bytes], None] | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        fault = self.conn.handshake_exc
        if not self.handshake_initiated and fault is not None:
            # Handshakes have smaller bounds than plain requests: 8 KiB a line, 128 lines.
            if isinstance(fault, SecurityError):
                self._refuse(Headers(), 431, "a header is too long, or there are too many", "")
            else:
                self._refuse(Headers(), 400, "the upgrade request is malformed", "")

    def handle_connect(self, event: Request) -> None:
        fault = handshake_fault(event.headers)
        if not fault:
            _strip_quotes(event.headers)
            fault = self._deeper_fault(event)
        if fault:
            self._refuse(event.headers, *fault)
            return
        super().handle_connect(event)
        if not self.handshake_complete:
            control: Control = {
                "unread_bytes": self._unread_bytes,
                "last_ping_s": lambda: self._last_ping_s,
                "write": self._write_frames,
                "hear_pongs": self._hear_pongs,
            }
            self.scope["extensions"]["websocket.control"] = control  # type: ignore[assignment]

    def _deeper_fault(self, event: Request) -> tuple[int, str, str] | None:
        """What the library finds wrong. Its own answer has another form, and repeats what it was sent."""
        status = self.conn.accept(event).status_code
        if status == 101:
            return None
        fault = self.conn.handshake_exc
        header = fault.name if isinstance(fault, InvalidHeader) else ""
        return status, f"{header} is malformed" if header else "the upgrade request is malformed", header

    def handle_parser_exception(self) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": "broke the protocol"})
        self._write()
        self.close_sent = True
        self._hang_up()

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > _PONG_BUFFER_LIMIT:
            self.transport.abort()
            return
        self._last_ping_s = self.loop.time()
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        payload = bytes(event.data)
        # One message for each ping, whatever a client sends: nobody may be reading any more.
        if payload == self.pending_ping_payload:
            self.pending_ping_payload = None
            if self._heard_pong is not None:
                self._heard_pong(payload)
                return
            self.queue.put_nowait({"type": "websocket.pong", "bytes": payload})  # type: ignore[typeddict-item]

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _FRAGMENT_LIMIT:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()
        else:
            super().handle_cont(event)

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        # It closes by itself once the buffer is empty; a client that reads no more must not keep it.
        self._hang_up()

    def eof_received(self) -> None:
        self._hang_up()

    def shutdown(self) -> None:
        """The process ends. Every socket has had its goodbye; what is left is on its way out or in."""
        if self.handshake_complete:
            self.transport.abort()
        else:
            self.send_500_response()
            self.transport.close()

    async def send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "websocket.abort":
            self.transport.abort()
        elif not self.handshake_complete or self.initial_response is not None:
            await super().send(message)
            if kind == "websocket.http.response.body" and not message.get("more_body"):
                # A refusal is an answer too; uvicorn would log it as a fault of the application.
                self.handshake_complete = True
        elif self.disconnected or self.close_sent or self.transport.is_closing():
            raise ClientDisconnected
        else:
            try:
                self._say(kind, message)
            except InvalidState:
                raise ClientDisconnected from None

    def _say(self, kind: str, message: Any) -> None:
        if kind == "websocket.send":
            self.conn.send_text(message["utf8"])
        elif kind == "websocket.ping":
            self.conn.send_ping(message["bytes"])
            self.pending_ping_payload = message["bytes"]
        elif kind == "websocket.close":
            self.conn.send_close(message.get("code", 1000), message.get("reason", ""))
            self.close_sent = True
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        else:
            raise RuntimeError(f"no such message: {kind}")
        self._write()

    def _write(self) -> None:
        self.transport.write(b"".join(self.conn.data_to_send()))

    def _hear_pongs(self, heard: Callable[[bytes], None]) -> None:
        self._heard_pong = heard

    def _write_frames(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        if self.disconnected or self.close_sent or self.transport.is_closing():
            raise ClientDisconnected
        try:
            for text in texts:
                self.conn.send_text(text)
            if ping is not None:
                self.conn.send_ping(ping)
                self.pending_ping_payload = ping
        except InvalidState:
            raise ClientDisconnected from None
        self._write()

    def _hang_up(self) -> None:
        self.transport.close()
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def _unread_bytes(self) -> int:
        return unread_bytes(self.transport)

    def _refuse(self, headers: Headers, status: int, message: str, header: str) -> None:
        given = headers.get_all("x-request-id")
        request_id = new_request_id(given[0] if given else "")
        fields = [(header, message)] if header else []
        body = error_body(status, message, request_id=request_id, fields=fields)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"{REQUEST_ID}: {request_id}",
            "sec-websocket-version: 13",
            "upgrade: websocket",
            "connection: close",
        ]
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self.transport.write("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)
        self.transport.close()


def handshake_fault(headers: Headers) -> tuple[int, str, str] | None:
    """What is wrong with an upgrade request, as (status, message, header); None when it is in order."""
    versions = headers.get_all("Sec-WebSocket-Version")
    if versions != ["13"]:
        return 426, "Sec-WebSocket-Version must be 13", "Sec-WebSocket-Version"
    keys = headers.get_all("Sec-WebSocket-Key")
    if len(keys) != 1:
        return 400, "Sec-WebSocket-Key must be given once", "Sec-WebSocket-Key"
    try:
        nonce = base64.b64decode(keys[0].strip().encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        nonce = b""
    if len(nonce) != 16:
        return 400, "Sec-WebSocket-Key must be 16 bytes in base64", "Sec-WebSocket-Key"
    return None


def _strip_quotes(headers: Headers) -> None:
    """Early documents of one dialect showed the whole list of subprotocols in quotes; clients copied that."""
    offered = headers.get_all("Sec-WebSocket-Protocol")
    if any('"' in value for value in offered):
        del headers["Sec-WebSocket-Protocol"]
        for value in offered:
            headers["Sec-WebSocket-Protocol"] = value.replace('"', "")
