"""The HTTP server of a service without an API of its own: health and metrics."""

from asyncio import Event
from socket import socket

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from shared import telemetry
from shared.runtime.http.health import health_routes
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.responses import internal_error_response, problem_response
from shared.runtime.http.server import serve


async def serve_health(listening: socket, *, stop: Event, metrics_port: int | None) -> None:
    """Serves health and metrics until `stop` is set."""
    handlers = {HTTPException: problem_response, Exception: internal_error_response}
    app = Starlette(
        routes=health_routes(lambda: not stop.is_set(), metrics_port=metrics_port),
        exception_handlers=handlers,
    )
    await serve(RequestLog(app, count=telemetry.request_answered), listening, stop=stop)
