"""Starts and stops an edge."""

import asyncio
import contextlib
from functools import partial

from redis.asyncio import Redis

from services.composition import Stores
from services.serving import Readiness, log_start, serve_app
from services.socket_edge.app import edge_app
from services.socket_edge.edge import Edge
from shared.model.errors import StoreUnavailable
from shared.publish.publishing import Publishing
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.server import listener
from shared.runtime.settings import Settings


def make_edge(
    settings: Settings, redis: Redis, readiness: Readiness, *, publishing: Publishing | None = None
) -> Edge:
    return Edge(Stores(settings, redis), settings, readiness, publishing=publishing)


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves sockets and long polls on EDGE_PORT until `stop`, then closes them."""
    readiness = Readiness(stop)
    edge = make_edge(settings, redis, readiness)
    health = health_routes(readiness, detail=readiness.detail, metrics_port=settings.metrics_port)
    listening = listener(settings.host, settings.edge_port)
    async with metrics_server(settings.host, settings.metrics_port), edge.running():
        app = edge_app(edge, health=health)
        await serve_app(
            app,
            listening,
            settings,
            stop=stop,
            on_shutdown=edge.shutdown,
            on_start=partial(log_start, "socket-edge", settings, listening),
        )
        with contextlib.suppress(StoreUnavailable):
            await edge.stores.stored_bytes.report()
