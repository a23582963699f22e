"""uvicorn's HTTP protocol with bounds on what a client may send before the application sees a request.

Only a GET over HTTP/1.1 without a body can become a WebSocket. Any other request that offers an upgrade is
handled as a plain request, as RFC 9110 allows: some HTTP clients offer h2c with every request.

`scope["extensions"]["http.connection"]` is a `Connection`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared import telemetry
from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.connection import Connection as Connection
from shared.runtime.http.connection import of_request
from shared.runtime.http.heads import HeadsProtocol
from shared.runtime.http.hot_routes import HotRequest, HotRoute, HotRoutes
from shared.runtime.http.known_heads import Head, KnownHead, known_head
from shared.runtime.http.request_head import RefusedHead, bad_url
from shared.runtime.http.responses import (
    REQUEST_ID,
    error_body,
    internal_error,
    new_request_id,
    problem_body,
    record_failure,
)
from shared.runtime.http.stage import Stage
from shared.runtime.http.streamed import StreamedResponse
from shared.runtime.http.write_coalescing import WriteCoalescer
from shared.runtime.send_queue import acked_bytes, has_hung_up, is_broken, unread_bytes
from shared.runtime.websocket.protocol import SocketProtocol
from shared.runtime.websocket.upgrade import (
    DRAINING,
    check_upgrade,
    rejection_response,
    response,
    subprotocols_in,
)

_HEAD_S = 10.0
_HEAD_BYTES = 64 * 1024
# So long the head of a hot request waits for its body: many clients write one after the other.
_BODY_S = 0.02
_REQUEST_ID = REQUEST_ID.encode()
# At shutdown: how long a first request may still take to arrive, and one that the kernel already has.
_ARRIVING_S = 1.0
_UNREAD_S = 0.1
# What the kernel keeps of a WebSocket client that sends faster than it is read. The kernel doubles it.
_SOCKET_RECEIVE_BYTES = 16 * 1024


class HttpProtocol(HeadsProtocol):
    """Closes a connection whose request line and headers are too long, or take too long."""

    def __init__(
        self,
        *args: Any,
        arrivals: Arrivals,
        hot_routes: HotRoutes = MappingProxyType({}),
        stage: Stage | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._arrivals = arrivals
        self._hot_routes = hot_routes
        self._stage = stage or Stage()
        self._hot: HotRoute | None = None
        self._hot_body: list[bytes] = []
        self._waiting_head = b""
        self._body_timer: asyncio.TimerHandle | None = None
        # The message that the parser has read last, if it was hot; then its head, which may come again.
        self._served: HotRequest | None = None
        self._known: KnownHead | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._notes: dict[str, str] = {}
        self.on_lost: Callable[[], None] | None = None
        self._unread_when_lost: int | None = None
        self._acked_when_lost: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = WriteCoalescer(transport, self.loop)  # type: ignore[assignment]
        self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._served = self._known = None
        if self._head_timer is not None:
            self._stop_head_timer()
        self._check_head()
        hot = self._hot_routes.get((self.parser.get_method(), self.url))
        if hot is None or self._is_responding() or self.flow.write_paused:
            self._begin_cycle()
        else:
            self._hot = hot

    def _begin_cycle(self) -> None:
        """Gives the request to the application."""
        self._make_scope()
        if self.parser.should_upgrade() and self._should_upgrade():
            # `handle_websocket_upgrade` goes on, behind the head.
            return
        connection: Connection = {
            "is_open": self._is_open,
            "unread_bytes": self._unread_bytes,
            "unacked_bytes": self._unacked_bytes,
            "has_hung_up": self._has_hung_up,
            "abort": self.transport.abort,
            "was_queued": self._is_responding(),
            "notes": self._notes,
            "end_with_input": self._end_with_input,
            "has_all": self._has_all,
            "owes_continue": lambda: False,
        }
        self.scope["extensions"] = {"http.connection": connection}  # type: ignore[dict-item]
        if not self._ignores_upgrade():
            super().on_headers_complete()
            if "raw_path" in self.scope:
                # Not decoded: %2F in a name is no slash, and another spelling of a path is another path.
                self.scope["path"] = self.scope["raw_path"].decode("ascii")
            if self.cycle is not None:
                connection["streamed"] = of_request(partial(StreamedResponse, self), self.cycle)
                if self.expect_100_continue:
                    connection["owes_continue"] = of_request(_owes_continue, self.cycle)
                if self._stage.is_leaving:
                    self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._callbacks += 1
        if self._hot is not None:
            self._hot_body.append(body)
        elif not self._ignores_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._hot is not None:
            if self._serve_hot(self._hot):
                return
            self._decline_hot()
        if not self._ignores_upgrade():
            super().on_message_complete()

    def _serve_hot(self, hot: HotRoute) -> bool:
        keep_alive = self._version != "1.0" and self.parser.should_keep_alive() and not self._stage.is_leaving
        request = HotRequest(self, Head(self.headers), b"".join(self._hot_body), keep_alive=keep_alive)
        if not self._is_served(hot, request):
            return False
        self._hot, self._hot_body, self._served = None, [], request
        return True

    def _is_served(self, hot: HotRoute, request: HotRequest) -> bool:
        last = self.cycle
        # First: it may respond at once.
        self.cycle = request  # type: ignore[assignment]
        try:
            if hot(request):
                return True
        except Exception as error:
            self._fail_hot(request, error)
            return True
        self.cycle = last
        return False

    def _learn_head(self, data: bytes, served: HotRequest) -> None:
        """The data may be all of a request that the parser has read."""
        self._served = None
        if served.keep_alive:
            method = self.parser.get_method()
            line = method + b" " + self.url + b" HTTP/1.1"
            self._known = known_head(data, line, served, self._hot_routes[method, self.url])

    def _serve_known(self, known: KnownHead, data: bytes) -> bool:
        """Serves a request whose head was parsed before, if it has arrived whole and nothing is under way."""
        is_idle = self._head_timer is None and not (
            self._is_in_head or self._unparsed or self.flow.write_paused or self._is_responding()
        )
        body = known.body_in(data) if is_idle and self._may_parse() and not self._stage.is_leaving else None
        if body is None:
            return False
        self._unset_keepalive_if_required()
        return self._is_served(known.route, HotRequest(self, known.head, body, keep_alive=True))

    def _fail_hot(self, request: HotRequest, error: Exception) -> None:
        """Responds to a bug: the parser would take it for a malformed request."""
        request_id = new_request_id()
        record_failure(self.parser.get_method().decode(), self.url.decode(), error, request_id=request_id)
        if not request.response_complete:
            headers = b"content-type: application/json\r\n%b: %b\r\n" % (_REQUEST_ID, request_id.encode())
            request.respond(500, headers, problem_body(internal_error(), request_id=request_id))

    def write_response(self, data: bytes) -> None:
        """Writes a whole response at once."""
        assert isinstance(self.transport, WriteCoalescer)
        self.transport.write_at_once(data)

    def _decline_hot(self) -> None:
        """The application serves the request with what has arrived of it."""
        parts, self._hot, self._hot_body = self._hot_body, None, []
        self._begin_cycle()
        for part in parts:
            self.on_body(part)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES + len(data):
                self._refuse(RefusedHead("the request line and headers are too long"))
                return
            if self._may_parse() and not self._arrivals.parse(self, self._on_turn):
                self._wait_for_turn(data)
                return
        elif self._body_timer is not None:
            self._end_wait_for_body(data)
            return
        elif data.endswith(b"\r\n\r\n") and self._is_hot_head(data):
            self._waiting_head = data
            self._body_timer = self.loop.call_later(_BODY_S, self._end_wait_for_body, b"")
            return
        self._serve(data)

    def _serve(self, data: bytes) -> None:
        if self._known is not None and self._serve_known(self._known, data):
            return
        self._take(data)
        if self._served is not None:
            self._learn_head(data, self._served)

    def _is_hot_head(self, data: bytes) -> bool:
        """Whether the data is the head of a hot request alone, and nothing is under way."""
        is_idle = not (self._is_in_head or self._unparsed or self._is_responding())
        method, _, rest = data.partition(b" ")
        is_hot = (method, rest.partition(b" ")[0]) in self._hot_routes
        is_head = data.find(b"\r\n\r\n") == len(data) - 4 and b"\r\nexpect:" not in data.lower()
        return is_idle and is_hot and is_head

    def _end_wait_for_body(self, data: bytes) -> None:
        """This has arrived behind the head, or nothing in time."""
        if self._body_timer is not None:
            self._body_timer.cancel()
            head, self._waiting_head, self._body_timer = self._waiting_head, b"", None
            self._serve(head + data)

    def eof_received(self) -> bool:  # type: ignore[override]
        self._end_wait_for_body(b"")
        return super().eof_received()

    def _on_share_parsed(self) -> None:
        if self._hot is not None:
            # The rest of the body comes later, perhaps slowly.
            self._decline_hot()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(RefusedHead("the method is none of HTTP's; methods are in capitals"))
        except httptools.HttpParserInvalidURLError:
            self._refuse(bad_url())
        except httptools.HttpParserError as error:
            # The parser raises an error of its own for that of a callback.
            why = error.__context__
            self._refuse(why if isinstance(why, RefusedHead) else RefusedHead("the request is malformed"))
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._ignores_upgrade():
                self._parse_without_upgrade(data[upgrade.args[0] :])

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parses the request again without its Upgrade header, behind which the parser reads no body."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"\r\n".join([*head, b"", rest]))

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over to a SocketProtocol."""
        rejection = check_upgrade(self.url, self.headers)
        if rejection is None and self._stage.is_closing:
            rejection = DRAINING
        if rejection is not None:
            self.transport.write(rejection_response(rejection, self.headers))
            self.transport.close()
            return
        self.connections.discard(self)
        self._is_handed_over = True
        if self._reading_paused:
            self.transport.resume_reading()
        assert isinstance(self.transport, WriteCoalescer)
        self.transport = self.transport.transport
        with contextlib.suppress(OSError, AttributeError):
            kernel_socket = self.transport.get_extra_info("socket")
            kernel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_RECEIVE_BYTES)
        protocol = SocketProtocol(self.config, self.server_state, self.transport, self.headers)
        self.transport.set_protocol(protocol)
        path, _, query = self.url.partition(b"?")
        scope = {
            **self.scope,
            "type": "websocket",
            "scheme": "wss" if self.scheme == "https" else "ws",
            "path": self.root_path + path.decode(),
            "raw_path": self.root_path.encode() + path,
            "query_string": query,
            "subprotocols": subprotocols_in(self.headers),
        }
        protocol.serve(self.app, scope)
        self.flow.detach()
        # Break the reference cycle, which would keep this object until the garbage collector runs.
        self.parser = self.scope = None  # type: ignore[assignment]

    def _refuse(self, why: RefusedHead) -> None:
        if self._is_responding() and not self.cycle.more_body:
            # An error now would be taken for the response to the request before: only close after that.
            self.cycle.keep_alive = False
            self._is_in_head = False
            return
        given = next((value for name, value in self.headers or () if name == _REQUEST_ID), b"")
        request_id = new_request_id(given.decode("latin-1"))
        headers = [(b"content-type", b"application/json"), (_REQUEST_ID, request_id.encode())]
        body = error_body(why.status, str(why), request_id=request_id)
        self.transport.write(response(why.status, headers, body))
        self.transport.close()

    def shutdown(self) -> None:
        """The server closes. A request that has arrived or is arriving still gets a response."""
        if self._is_responding():
            self.cycle.keep_alive = False
        else:
            may_arrive = self._is_in_head or self.cycle is None
            self.loop.call_later(_ARRIVING_S if may_arrive else _UNREAD_S, self._close_unless_responding)

    def _close_unless_responding(self) -> None:
        if not self._lost and not self._is_responding() and self.transport.get_protocol() is self:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        # Some clients hang up as soon as they have read: afterwards the kernel's count is gone.
        self._unread_when_lost = self._unread_bytes() if exc is None else None
        self._acked_when_lost = acked_bytes(self.transport)
        self._lost = True
        super().connection_lost(exc)
        if self.on_lost is not None:
            on_lost, self.on_lost = self.on_lost, None
            on_lost()
        self.flow.detach()

    def _has_all(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.more_body

    def _is_open(self) -> bool:
        return not self._lost and not self.transport.is_closing()

    def _has_hung_up(self) -> bool:
        return not self._is_open() or has_hung_up(self.transport)

    def _unread_bytes(self) -> int | None:
        if self._lost:
            return self._unread_when_lost
        return None if is_broken(self.transport) else unread_bytes(self.transport)

    def _unacked_bytes(self) -> int | None:
        acked = self._acked_when_lost if self._lost else acked_bytes(self.transport)
        if acked is None:
            return self._unread_bytes()
        assert isinstance(self.transport, WriteCoalescer)
        return self.transport.written_bytes - acked

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(_HEAD_S, self._abort_late_head)
            self._arrivals.add(self)

    def _abort_late_head(self) -> None:
        telemetry.refusals.add(1, {"reason": "late-heads"})
        self.transport.abort()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._arrivals.forget(self)


def _owes_continue(cycle: RequestResponseCycle) -> bool:
    return cycle.waiting_for_100_continue and cycle.more_body and not cycle.body
