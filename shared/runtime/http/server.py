"""Serves one ASGI app on one port; at shutdown the app closes its connections before the listener closes."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import MappingProxyType

import uvicorn
from starlette.types import ASGIApp

from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.hot_routes import HotRoutes
from shared.runtime.http.protocol import HttpProtocol
from shared.runtime.http.stage import Stage
from shared.runtime.process import freeze_heap
from shared.runtime.websocket.protocol import SocketProtocol

logger = logging.getLogger(__name__)

_SHUTDOWN_LIMIT_S = 2
# Of a server for metrics.
_ARRIVING = 1000
_CLIENT_MESSAGE_LIMIT_BYTES = 64 * 1024
# For clients that all reconnect at once. The system caps it at net.core.somaxconn.
_BACKLOG = 16 * 1024


class CannotListen(Exception):
    """The address cannot be bound."""


class _Server(uvicorn.Server):
    """Awaits `on_shutdown` before uvicorn closes connections, and installs no signal handlers."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_shutdown: Callable[[], Awaitable[None]] | None,
        on_start: Callable[[], None],
        stage: Stage,
    ) -> None:
        super().__init__(config)
        self._stage = stage
        self._on_shutdown = on_shutdown
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # services/__main__.py handles signals: one of them stops several servers.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        freeze_heap()
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._on_shutdown is not None:
            await self._on_shutdown()
        self._stage.is_closing = True
        await super().shutdown(sockets)


def listener(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CannotListen, in one line that names the address."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    bound.setblocking(False)
    return bound


async def serve(
    app: ASGIApp,
    listening: socket.socket,
    *,
    stop: asyncio.Event,
    arrivals: Arrivals | None = None,
    on_shutdown: Callable[[], Awaitable[None]] | None = None,
    on_start: Callable[[], None] = lambda: None,
    hot_routes: HotRoutes = MappingProxyType({}),
) -> None:
    """Serves until `stop` is set. Then awaits `on_shutdown`, closes the port, and waits 2 s for requests.

    Each response from then on ends its connection.

    Requests that have arrived or are arriving get a response, WebSocket handshakes a 503.
    """
    stage = Stage(stop)
    if arrivals is None:
        arrivals = Arrivals(most=_ARRIVING, most_per_address=_ARRIVING, trusted=())
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=partial(  # type: ignore[arg-type]
            HttpProtocol,
            arrivals=arrivals,
            hot_routes=hot_routes,
            stage=stage,
        ),
        ws=SocketProtocol,
        backlog=_BACKLOG,
        ws_max_size=_CLIENT_MESSAGE_LIMIT_BYTES,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_LIMIT_S,
        timeout_keep_alive=75,
    )
    server = _Server(config, on_shutdown=on_shutdown, on_start=on_start, stage=stage)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
