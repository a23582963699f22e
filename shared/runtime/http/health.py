"""Health and metrics of one process.

`/livez` shows that the loop turns, and never asks Redis; `/readyz` that the process has started and is not
going away. Redis is a metric, not a health check: or a blip of it would take every replica away at once.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.runtime.exporters import metrics_page


def health_routes(is_ready: Callable[[], bool], *, metrics_port: int | None) -> list[Route]:
    """Health; and metrics, unless they have a port of their own."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("going away\n", 503, {"retry-after": "1"})

    health = [Route("/livez", livez), Route("/readyz", readyz)]
    return health if metrics_port else [*health, metrics_route()]


def metrics_route() -> Route:
    async def metrics(_: Request) -> Response:
        body, content_type = metrics_page()
        return Response(body, headers={"content-type": content_type})

    return Route("/metrics", metrics)
