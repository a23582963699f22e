"""uvicorn's HTTP protocol with bounds on what a stranger may send before the application sees a request.

Only a GET over HTTP/1.1 without a body can become a WebSocket. In any other request the offer of an upgrade
is ignored, as a server may, and the application answers the plain request that it is: some HTTP clients offer
h2c with everything they send.

`scope["extensions"]["http.connection"]` is a `Connection`: what became of the bytes of an answer.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypedDict
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.runtime.http.responses import REQUEST_ID, error_body, new_request_id
from shared.runtime.http.write_coalescing import WriteCoalescer
from shared.runtime.send_queue import has_hung_up, is_broken, unread_bytes
from shared.runtime.websocket.protocol import SocketProtocol
from shared.runtime.websocket.upgrade import fault_in, refused, subprotocols_in

_HEAD_S = 10.0
_HEAD_BYTES = 64 * 1024


class Connection(TypedDict):
    """The connection of a request.

    `is_open`: does what is written now go on its way? `unread_bytes`: how much of what did is not confirmed
    by the peer's machine; None when nobody will ever know. `has_hung_up`: has the peer, whether or not the
    application was told already? `abort` drops it with all that waits. `was_queued`: did the request come
    while the one before it was still being answered? `notes` are kept from one request to the next.
    `has_all`: has the whole request arrived, so that reading it waits for nothing?
    """

    is_open: Callable[[], bool]
    unread_bytes: Callable[[], int | None]
    has_hung_up: Callable[[], bool]
    abort: Callable[[], None]
    was_queued: bool
    notes: dict[str, str]
    has_all: Callable[[], bool]


class HttpProtocol(HttpToolsProtocol):
    """Cuts a connection whose request line and headers are too long, or do not arrive in time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._is_in_head = False
        self._lost = False
        self._notes: dict[str, str] = {}
        self._unread_when_lost: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # For uvicorn it is a transport like any other.
        self.transport = WriteCoalescer(transport, self.loop)  # type: ignore[assignment]
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        connection: Connection = {
            "is_open": self._is_open,
            "unread_bytes": self._unread_bytes,
            "has_hung_up": self._has_hung_up,
            "abort": self.transport.abort,
            "was_queued": self._is_answering(),
            "notes": self._notes,
            "has_all": self._has_all,
        }
        self.scope["extensions"] = {"http.connection": connection}  # type: ignore[dict-item]
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_arrived()
        if not self._ignores_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._ignores_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._ignores_upgrade():
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES + len(data):
                self.send_400_response("the request line and headers are too long")
                return
        self._parse(data)
        # A head most often arrives whole, and then needs no timer. What follows an answer and begins no
        # request disarmed the keep-alive timer: count from here again.
        if self._is_in_head or (not self._is_answering() and self.transport.get_protocol() is self):
            self._await_head()

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("the request is malformed")
        except httptools.HttpParserUpgrade as offer:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._ignores_upgrade():
                self._parse_without_offer(data[offer.args[0] :])

    def _parse_without_offer(self, rest: bytes) -> None:
        """The parser leaves what follows an offer to us, the body too: reads all again, without one."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"\r\n".join([*head, b"", rest]))

    def _ignores_upgrade(self) -> bool:
        if not self.parser.should_upgrade():
            return False
        offers = any(name == b"upgrade" for name, _ in self.headers)
        return offers and not self._should_upgrade()

    def _should_upgrade(self) -> bool:
        upgradable = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return upgradable and not _has_body(self.headers) and super()._should_upgrade()

    def _get_upgrade(self) -> bytes | None:
        connection = [value for name, value in self.headers if name == b"connection"]
        upgrade = [value for name, value in self.headers if name == b"upgrade"]
        options = [option.strip().lower() for option in b",".join(connection).split(b",")]
        return upgrade[-1].lower() if upgrade and b"upgrade" in options else None

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is a SocketProtocol's; what was read of it is not read again."""
        if error := fault_in(self.url, self.headers):
            self.transport.write(refused(error, self.headers))
            self.transport.close()
            return
        self.connections.discard(self)
        assert isinstance(self.transport, WriteCoalescer)
        self.transport = self.transport.transport
        protocol = SocketProtocol(self.config, self.server_state, self.transport, self.headers)
        self.transport.set_protocol(protocol)
        raw_path, _, query = self.url.partition(b"?")
        scope = {
            **self.scope,
            "type": "websocket",
            "scheme": "wss" if self.scheme == "https" else "ws",
            "path": self.root_path + unquote(raw_path.decode()),
            "raw_path": self.root_path.encode() + raw_path,
            "query_string": query,
            "subprotocols": subprotocols_in(self.headers),
        }
        protocol.serve(self.app, scope)
        # They would keep each other, and this object, until the collector comes.
        self.parser = self.scope = None  # type: ignore[assignment]

    def send_400_response(self, msg: str) -> None:
        request_id = new_request_id()
        body = error_body(400, msg, request_id=request_id)
        lines = [
            "HTTP/1.1 400 Bad Request",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"{REQUEST_ID}: {request_id}",
            "connection: close",
        ]
        self.transport.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        # Some clients hang up as soon as they have read: now is the last moment to see that they had.
        self._unread_when_lost = self._unread_bytes() if exc is None else None
        self._lost = True
        super().connection_lost(exc)

    def _has_all(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.more_body

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _is_open(self) -> bool:
        return not self._lost and not self.transport.is_closing()

    def _has_hung_up(self) -> bool:
        return not self._is_open() or has_hung_up(self.transport)

    def _unread_bytes(self) -> int | None:
        if self._lost:
            return self._unread_when_lost
        return None if is_broken(self.transport) else unread_bytes(self.transport)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(_HEAD_S, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
        for name, value in headers
    )
