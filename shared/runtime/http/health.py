"""Health and metrics of one process.

`/livez` shows that the event loop runs; `/readyz` that the process has started and is not draining. Neither
asks Redis: a short outage would make every replica unready at once. A metric shows whether Redis replies.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.runtime.exporters import metrics_page


def health_routes(is_ready: Callable[[], bool], *, metrics_port: int | None) -> list[Route]:
    """Health, and metrics unless they have their own port."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("draining\n", 503, {"retry-after": "1"})

    health = [Route("/livez", livez), Route("/readyz", readyz)]
    return health if metrics_port else [*health, metrics_route()]


def metrics_route() -> Route:
    async def metrics(_: Request) -> Response:
        body, content_type = metrics_page()
        return Response(body, headers={"content-type": content_type})

    return Route("/metrics", metrics)
