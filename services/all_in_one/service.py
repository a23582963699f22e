"""Runs every service in one process on one port."""

import asyncio
from contextlib import nullcontext

from starlette.types import ASGIApp

from services.all_in_one.first_start import admin_token, make_demo_key
from services.all_in_one.welcome import welcome
from services.composition import build_outbound, jobs_redis
from services.expiry_reaper.service import reaping
from services.gateway.app import gateway_app
from services.gateway.context import Context
from services.gateway.hot_publish import hot_routes
from services.gateway.service import make_context
from services.serving import Readiness, has_our_layout, keeping_time, log_start, serve_app
from services.socket_edge.app import by_kind, plain_routes, socket_app
from services.socket_edge.edge import Edge
from services.socket_edge.service import make_edge
from services.webhook_dispatcher.service import dispatching
from shared.redis.client import connect
from shared.runtime.embedded import embedded_valkey
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.server import listener
from shared.runtime.settings import Settings
from shared.store.commands import commands_to


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serves everything on PORT until `stop`. An embedded Valkey starts first and stops last.

    Raises WrongLayout, and ValkeyFailed when the embedded Valkey died.
    """
    url = settings.redis_url
    valkey = embedded_valkey(settings.data_dir, on_death=stop.set) if url is None else nullcontext(url)
    async with valkey as url, connect(url) as redis:
        commands = commands_to(redis)
        if not await has_our_layout(settings, commands, port=settings.port, stop=stop):
            return
        listening = listener(settings.host, settings.port)
        outbound = build_outbound(settings)
        context = make_context(settings, redis, admin_token=admin_token(settings), outbound=outbound)
        readiness = Readiness(stop)
        edge = make_edge(settings, redis, readiness, publishing=context.publishing)

        async def on_shutdown() -> None:
            await context.fetch_waits.end()
            await edge.shutdown()

        def on_start() -> None:
            log_start("all", settings, listening)
            if settings.log_format == "text":
                print(welcome(settings), flush=True)

        async with (
            metrics_server(settings.host, settings.metrics_port),
            keeping_time(commands),
            outbound,
            jobs_redis(settings, redis) as jobs,
            edge.running(),
            dispatching(settings, redis, jobs, readiness),
            reaping(settings, redis, jobs, readiness),
        ):
            await make_demo_key(context.stores.api_keys, settings.data_dir)
            await serve_app(
                _app(context, edge, readiness, metrics_port=settings.metrics_port),
                listening,
                settings,
                stop=stop,
                on_shutdown=on_shutdown,
                on_start=on_start,
                hot_routes=hot_routes(context),
            )


def _app(context: Context, edge: Edge, readiness: Readiness, *, metrics_port: int | None) -> ASGIApp:
    health = health_routes(readiness, detail=readiness.detail, metrics_port=metrics_port)
    app = gateway_app(context, more=[*plain_routes(edge), *health])
    return by_kind(app, socket_app(edge))
