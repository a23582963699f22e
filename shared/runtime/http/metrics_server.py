"""Metrics on a port of their own, for which a network policy can decide who may read them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette

from shared.runtime.http.health import metrics_route
from shared.runtime.http.server import listener, serve


@contextlib.asynccontextmanager
async def metrics_server(host: str, port: int | None) -> AsyncIterator[None]:
    """Serves /metrics until the context ends, so also while the process drains. Does nothing without a port.

    Raises CannotListen.
    """
    if port is None:
        yield
        return
    stop = asyncio.Event()
    listening = listener(host, port)
    serving = asyncio.create_task(serve(Starlette(routes=[metrics_route()]), listening, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await serving
