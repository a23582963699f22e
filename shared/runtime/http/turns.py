"""uvicorn's HTTP protocol, parsing in turns: a client that floods does not delay other clients.

A turn of the event loop parses only a share of what has arrived on a connection. The rest waits for the next
turn, or for the response to an earlier request.
"""

import asyncio
from abc import abstractmethod
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr, is_ssl

from shared.runtime.http.flow import Flow

# One connection's share of a turn of the event loop. A slice has at most 120 requests or 350 chunks.
_BYTES_PER_TURN = 64 * 1024
_CALLBACKS_PER_TURN = 64
# What a slice within a head counts for: it may have hundreds of headers.
_CALLBACKS_OF_A_HEAD = 16
_SLICE_BYTES = 2 * 1024
# So many requests wait for the response to the one before them; the rest stays unparsed.
_PIPELINE_LIMIT = 8


class TurnsProtocol(HttpToolsProtocol):
    """`HttpProtocol` parses what it is given here, and says what is under way."""

    flow: Flow

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._lost = False
        # What has arrived and is not parsed yet.
        self._unparsed = b""
        self._callbacks = 0
        self._is_parsing = False
        # A callback of the event loop will parse the next share.
        self._turn_is_due = False
        self._reading_paused = False
        self._is_handed_over = False
        # The client has ended its requests, and may still read the responses.
        self._has_ended = False
        self._ends_with_input = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Not uvicorn's: it asks the kernel for the server's address too, which nothing here reads.
        self.connections.add(self)
        self.transport = transport
        self.flow = Flow(transport, self._plan_reading)
        self.client = get_remote_addr(transport)
        self.scheme = "https" if is_ssl(transport) else "http"

    def _take(self, data: bytes) -> None:
        """Data has arrived."""
        self._unparsed += data
        if self._may_parse():
            self._parse_share()

    def _parse_share(self) -> None:
        """Parses what one turn of the event loop may spend on this connection, and plans the next turn."""
        self._unset_keepalive_if_required()
        data, end = self._unparsed, 0
        limit = min(len(data), _BYTES_PER_TURN)
        self._callbacks, self._is_parsing = 0, True
        while end < limit and self._callbacks < _CALLBACKS_PER_TURN and self._may_go_on():
            self._parse(data[end : end + _SLICE_BYTES])
            end += _SLICE_BYTES
            if self._is_in_head:
                self._callbacks += _CALLBACKS_OF_A_HEAD
        self._is_parsing = False
        if self._is_over():
            self._unparsed = b""
            return
        self._unparsed = data[end:]
        if not self._unparsed:
            self._on_share_parsed()
        self._plan_reading()
        # Most heads arrive whole and need no timer. Data after a response that begins no request stopped
        # uvicorn's keep-alive timer: without ours such a connection would stay open for ever.
        has_timer = self._is_responding() or self.timeout_keep_alive_task is not None
        if not self._reading_paused and (self._is_in_head or not has_timer):
            self._start_head_timer()

    def _wait_for_turn(self, data: bytes) -> None:
        """Keeps the data, and reads no more, until `_on_turn` is called."""
        self._unparsed += data
        self._turn_is_due = self._reading_paused = True
        self.transport.pause_reading()

    def _may_go_on(self) -> bool:
        return not self._is_over() and not self.flow.read_paused and len(self.pipeline) < _PIPELINE_LIMIT

    def _may_parse(self) -> bool:
        return not self._is_parsing and not self._turn_is_due and self._may_go_on()

    def _is_over(self) -> bool:
        """Nothing more is parsed here: the connection closes, or is a WebSocket's."""
        return self._lost or self.transport.is_closing() or self._is_handed_over

    def _on_turn(self) -> None:
        self._turn_is_due = False
        if self._may_parse():
            self._parse_share()
        else:
            self._plan_reading()

    def _plan_reading(self) -> None:
        """Reads on, unless a later turn or a response comes first."""
        # Fast path: nothing waits, and reading goes on.
        if not (self._unparsed or self._reading_paused or self.flow.read_paused or self.pipeline):
            return
        if self._is_parsing or self._is_over():
            return
        if self._unparsed and self._may_parse():
            self._turn_is_due = True
            self.loop.call_soon(self._on_turn)
        pauses = bool(self._unparsed) or not self._may_go_on()
        if pauses == self._reading_paused:
            return
        self._reading_paused = pauses
        if pauses:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
            if self._is_in_head:
                self._start_head_timer()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection open for responses to requests that have arrived whole."""
        cycle: RequestResponseCycle | None = self.cycle
        is_whole = cycle is None or not cycle.more_body
        has_work = self._is_responding() or bool(self._unparsed)
        self._has_ended = has_work and is_whole and not self._ends_with_input
        if not self._has_ended:
            # Not by returning: that would drop what waits for the end of the turn to be written.
            self.transport.close()
        return self._has_ended

    def _end_with_input(self) -> None:
        """The request takes long: a client that ends its input has most likely gone."""
        self._ends_with_input = True
        if self._has_ended:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_ended and not self._is_responding() and not self._unparsed:
            self.transport.close()
        # The pipeline is shorter by one.
        self._plan_reading()

    def _is_responding(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @abstractmethod
    def _parse(self, data: bytes) -> None:
        """Parses a slice."""

    @abstractmethod
    def _on_share_parsed(self) -> None:
        """Everything that has arrived is parsed."""

    @abstractmethod
    def _start_head_timer(self) -> None:
        """The next request must arrive in time."""
