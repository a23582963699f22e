"""Health and metrics of one process.

`/livez` shows that the event loop runs, and the version; `/readyz` that the process is able to work and does
not drain. It is able to work once Redis has replied to it, and to its worker if it has one. After that
neither asks Redis: a short outage would make every replica unready at once. A metric shows whether Redis
replies.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.runtime.exporters import metrics_page
from shared.runtime.http.app import app_of
from shared.runtime.http.server import listener, serve
from shared.version import build_line


def health_routes(
    is_ready: Callable[[], bool], *, detail: Callable[[], str], metrics_port: int | None
) -> list[Route]:
    """Health, and metrics unless they have their own port. `detail` adds lines to what /readyz says."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse(f"ok\n{build_line()}\n")

    async def readyz(_: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n" + detail())
        return PlainTextResponse("not ready\n" + detail(), 503, {"retry-after": "1"})

    health = [Route("/livez", livez), Route("/readyz", readyz)]
    return health if metrics_port else [*health, _METRICS]


@contextlib.asynccontextmanager
async def metrics_server(host: str, port: int | None) -> AsyncIterator[None]:
    """Serves /metrics on a port of its own, for which a network policy can decide who may read it.

    It ends with the context, so after the process has drained. Does nothing without a port. Raises
    CannotListen.
    """
    if port is None:
        yield
        return
    stop = asyncio.Event()
    listening = listener(host, port)
    serving = asyncio.create_task(serve(app_of([_METRICS]), listening, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await serving


async def _metrics(_: Request) -> Response:
    body, content_type = metrics_page()
    return Response(body, headers={"content-type": content_type})


_METRICS = Route("/metrics", _metrics)
