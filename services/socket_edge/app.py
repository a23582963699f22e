"""What an edge answers: WebSockets on the dialects' paths, long polls, and little else."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.socket_edge.edge import Edge
from services.socket_edge.long_poll import pull_routes
from services.socket_edge.pelion_socket import pelion_socket
from shared.runtime.answers import Problem, failure_answer, problem_answer, refuse_handshake

CONNECT_PATH = "/v2/notification/websocket-connect"

_Sockets = dict[str, Callable[[Edge, Scope, Receive, Send], Awaitable[None]]]
_SOCKETS: _Sockets = {CONNECT_PATH: pelion_socket}


def socket_app(edge: Edge) -> ASGIApp:
    """WebSocket handshakes, by exact path. A plain ASGI callable: frameworks know no pongs."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        serve = _SOCKETS.get(scope["path"])
        if serve is None:
            await receive()
            await refuse_handshake(scope, send, Problem(404, "there is no WebSocket at this path"))
        else:
            await serve(edge, scope, receive, send)

    return app


async def upgrade_required(_: Request) -> Response:
    """Where a WebSocket belongs, a plain request gets a 426 that says so."""
    missing = [("Connection", "must be Upgrade"), ("Upgrade", "must be websocket")]
    raise Problem(
        426,
        "this is a WebSocket: send the headers Connection: Upgrade and Upgrade: websocket, over HTTP/1.1"
        " and without a body",
        fields=missing,
        headers={"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"},
    )


UPGRADE_ROUTES: list[BaseRoute] = [Route(path, upgrade_required, methods=["GET"]) for path in _SOCKETS]


def edge_app(edge: Edge, *, health: list[Route]) -> ASGIApp:
    """The app of an edge that runs apart."""
    plain = Starlette(
        routes=[*UPGRADE_ROUTES, *pull_routes(edge), *health],
        exception_handlers={HTTPException: problem_answer, Exception: failure_answer},
    )
    return by_kind(plain, socket_app(edge))


def by_kind(plain: ASGIApp, sockets: ASGIApp) -> ASGIApp:
    """Sends WebSocket handshakes one way, all else the other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (sockets if scope["type"] == "websocket" else plain)(scope, receive, send)

    return app
