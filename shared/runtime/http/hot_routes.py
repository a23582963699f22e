"""Hot routes: requests that are served by callbacks, without a task, a scope or a middleware.

A hot route gets a request whose body has arrived with its head, and may decline it: then the application
serves the request. Both call the same functions, so a hot route has no rules of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from shared.runtime.http.protocol import HttpProtocol

HotRoute: TypeAlias = Callable[["HotRequest"], bool]
"""False: it declines the request, and must not respond."""
HotRoutes: TypeAlias = Mapping[tuple[bytes, bytes], HotRoute]
"""By method and path, exactly as the client sends them."""


class HotRequest:
    """One request, and its response. It takes the place of uvicorn's request cycle on its connection.

    Names of `headers` are in lower case.
    """

    __slots__ = ("_protocol", "body", "disconnected", "headers", "keep_alive", "response_complete")
    # The body has arrived.
    more_body = False

    def __init__(
        self,
        protocol: "HttpProtocol",
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        keep_alive: bool,
    ) -> None:
        self._protocol = protocol
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Writes the whole response; the length is added. Does nothing once the connection is lost."""
        if self.disconnected:
            return
        protocol = self._protocol
        parts = [STATUS_LINE[status]]
        for name, value in (*protocol.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: ", str(len(body)).encode(), b"\r\n\r\n", body)
        protocol.write_response(b"".join(parts))
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
