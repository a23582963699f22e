"""What a service needs that works by itself and is asked nothing but how it is."""

import contextlib
from asyncio import Event
from collections.abc import AsyncIterator
from socket import socket

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from shared import telemetry
from shared.runtime.answers import failure_answer, problem_answer
from shared.runtime.connections import connect
from shared.runtime.health import health_routes
from shared.runtime.requests import Requests
from shared.runtime.serving import serve


async def serve_health(listening: socket, *, stop: Event, metrics_port: int | None) -> None:
    """Health and metrics, until `stop`."""
    handlers = {HTTPException: problem_answer, Exception: failure_answer}
    app = Starlette(
        routes=health_routes(lambda: not stop.is_set(), metrics_port=metrics_port),
        exception_handlers=handlers,
    )
    await serve(Requests(app, count=telemetry.request_answered), listening, stop=stop, goodbye=_nothing)


@contextlib.asynccontextmanager
async def jobs_redis(url: str | None, *, otherwise: Redis) -> AsyncIterator[Redis]:
    """The Redis in which jobs stand: at `url`, if they have one of their own."""
    if url is None:
        yield otherwise
        return
    async with connect(url) as jobs:
        yield jobs


async def _nothing() -> None:
    """Whoever works by itself lets go of what it holds elsewhere."""
