"""For services without an API of their own: a server for health and metrics, and the jobs' Redis."""

import contextlib
from asyncio import Event
from collections.abc import AsyncIterator
from socket import socket

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from shared import telemetry
from shared.redis.client import connect
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


@contextlib.asynccontextmanager
async def jobs_redis(url: str | None, *, otherwise: Redis) -> AsyncIterator[Redis]:
    """The Redis of the job queue: the one at `url`, or else the given one."""
    if url is None:
        yield otherwise
        return
    async with connect(url) as jobs:
        yield jobs
