"""The ASGI app of an edge: WebSockets on the dialects' paths, long polls, streams, and little else."""

import posixpath
import re
from collections.abc import Awaitable
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.socket_edge.blackhole_socket import open_blackhole_socket
from services.socket_edge.cognism_socket import authenticate, open_cognism_socket
from services.socket_edge.edge import Edge
from services.socket_edge.handshakes import OpenSocket, serve_socket
from services.socket_edge.long_poll import pull_routes
from services.socket_edge.native.door import NATIVE_PATH, open_native_socket
from services.socket_edge.pelion_socket import open_pelion_socket
from services.socket_edge.streams.sse import stream_routes
from shared.model.errors import StoreUnavailable
from shared.runtime.http.app import app_of
from shared.runtime.http.responses import Problem, refuse_handshake, unavailable

CONNECT_PATH = "/v2/notification/websocket-connect"
JOIN_PATH = "/api/v1/websocket"
SOCKET_PATH = "/socket"

_SOCKETS: dict[str, OpenSocket] = {
    CONNECT_PATH: open_pelion_socket,
    JOIN_PATH: open_cognism_socket,
    NATIVE_PATH: open_native_socket,
}
# Below these paths only exact ones are sockets; any other is a 404.
_API = ("/v1/", "/v2/", "/api/")
_SLASHES = re.compile(r"[/\\]+")


def socket_app(edge: Edge) -> ASGIApp:
    """WebSocket handshakes: by exact path, and Blackhole's on every path outside the APIs.

    A plain ASGI callable: frameworks know no pongs. It returns the awaitable: a frame of its own would stay
    in memory for each socket.
    """

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope["raw_path"].decode("latin-1")
        if path not in _SOCKETS and _is_in_apis(path):
            return _no_socket(scope, receive, send)
        return serve_socket(_SOCKETS.get(path, open_blackhole_socket), edge, scope, receive, send)

    return app


def _is_in_apis(path: str) -> bool:
    """Might the client mean one of our APIs, by any spelling? Blackhole would accept it, and be silent."""
    plain = posixpath.normpath(_SLASHES.sub("/", unquote(unquote(path)))).lower()
    return f"{plain}/".startswith(_API)


async def _no_socket(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await refuse_handshake(scope, send, Problem(404, "there is no WebSocket at this path; paths are exact"))


async def upgrade_required(_: Request) -> Response:
    """A plain request to the path of a WebSocket gets a 426."""
    missing = [("Connection", "must be Upgrade"), ("Upgrade", "must be websocket")]
    raise Problem(
        426,
        "this is a WebSocket: send the headers Connection: Upgrade and Upgrade: websocket, over HTTP/1.1"
        " and without a body",
        fields=missing,
        headers={"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"},
    )


def upgrade_routes(edge: Edge) -> list[BaseRoute]:
    """Plain requests to the paths of sockets."""

    async def join(request: Request) -> Response:
        # Check credentials first: the 426 must not depend on whether they are valid.
        try:
            await authenticate(edge, request.scope)
        except StoreUnavailable:
            raise unavailable() from None
        return await upgrade_required(request)

    return [
        Route(CONNECT_PATH, upgrade_required, methods=["GET"]),
        Route(NATIVE_PATH, upgrade_required, methods=["GET"]),
        Route(SOCKET_PATH, upgrade_required, methods=["GET"]),
        Route(JOIN_PATH, join, methods=["GET"]),
    ]


def plain_routes(edge: Edge) -> list[BaseRoute]:
    """What an edge serves without an upgrade."""
    return [*upgrade_routes(edge), *pull_routes(edge), *stream_routes(edge)]


def edge_app(edge: Edge, *, health: list[Route]) -> ASGIApp:
    """The app of an edge in a process of its own."""
    plain = app_of([*plain_routes(edge), *health])
    return by_kind(plain, socket_app(edge))


def by_kind(plain: ASGIApp, sockets: ASGIApp) -> ASGIApp:
    """WebSocket handshakes go to `sockets`, requests to `plain`."""

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (sockets if scope["type"] == "websocket" else plain)(scope, receive, send)

    return app
