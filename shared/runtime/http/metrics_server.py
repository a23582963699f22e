"""Metrics on a port of their own: there a network policy can tell who may read them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette

from shared.runtime.http.health import metrics_route
from shared.runtime.http.server import listener, serve


@contextlib.asynccontextmanager
async def metrics_server(host: str, port: int | None) -> AsyncIterator[None]:
    """Serves /metrics alone for as long as it is entered, goodbyes included; nothing if there is no port.

    Raises CannotListen.
    """
    if port is None:
        yield
        return
    stop = asyncio.Event()
    listening = listener(host, port)
    serving = asyncio.create_task(
        serve(Starlette(routes=[metrics_route()]), listening, stop=stop, on_shutdown=_nothing)
    )
    try:
        yield
    finally:
        stop.set()
        await serving


async def _nothing() -> None:
    """There is nothing to let go of."""
