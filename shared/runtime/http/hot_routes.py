"""Hot routes: served by callbacks, without a task, a scope or a middleware.

A hot route gets a request whose body has arrived with its head, and may decline it: then the application
serves the request. Both call the same functions, so a hot route has no rules of its own.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from shared.runtime.http.known_heads import Head

if TYPE_CHECKING:
    from shared.runtime.http.protocol import HttpProtocol

HotRoute: TypeAlias = Callable[["HotRequest"], bool]
"""False: it declines the request, and must not respond."""
HotRoutes: TypeAlias = Mapping[tuple[bytes, bytes], HotRoute]
"""By method and path, exactly as the client sends them."""


class HotRequest:
    """One request, and its response. It takes the place of uvicorn's request cycle on its connection."""

    __slots__ = ("_protocol", "body", "disconnected", "head", "keep_alive", "response_complete")
    # The body has arrived.
    more_body = False

    def __init__(self, protocol: "HttpProtocol", head: Head, body: bytes, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.head = head
        self.body = body
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Writes the whole response; the length is added. Does nothing once the connection is lost.

        `headers` are lines, each with its end.
        """
        if self.disconnected:
            return
        protocol = self._protocol
        for name, value in protocol.server_state.default_headers:
            headers += name + b": " + value + b"\r\n"
        if not self.keep_alive:
            headers += b"connection: close\r\n"
        protocol.write_response(
            b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], headers, len(body), body)
        )
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    @property
    def message_event(self) -> "HotRequest":
        """uvicorn sets it when the connection is lost."""
        return self

    def set(self) -> None:
        """Nothing waits for a hot request."""
