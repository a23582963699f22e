"""Starts and stops an edge."""

import asyncio

from redis.asyncio import Redis

from services.composition import Stores, serve_app
from services.socket_edge.app import edge_app
from services.socket_edge.edge import Edge, Timing
from services.socket_edge.leased_socket import Limits
from services.socket_edge.session_socket import SessionLimits
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.server import listener
from shared.runtime.settings import Settings


def make_edge(settings: Settings, redis: Redis) -> Edge:
    return Edge(
        Stores(settings, redis),
        limits=Limits(
            frame_bytes=settings.frame_limit_bytes,
            frame_count=settings.batch_limit,
            in_flight_count=settings.in_flight_limit,
            in_flight_bytes=settings.in_flight_bytes,
            ping_timeout_s=settings.ping_timeout_s,
        ),
        timing=Timing(
            ping_interval_s=settings.ping_interval_s,
            heartbeat_s=settings.heartbeat_s,
            redis_outage_limit_s=settings.redis_outage_limit_s,
            long_poll_wait_s=settings.long_poll_wait_s,
            drain_delay_s=settings.drain_delay_s,
            drain_window_s=settings.drain_window_s,
        ),
        session_limits=SessionLimits(
            idle_s=settings.blackhole_idle_s,
            most_per_address=settings.max_sockets_per_address,
            destination=settings.replica,
            trusted_proxies=settings.trusted_proxies,
        ),
        close_codes=settings.pelion_close_codes,
    )


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves sockets and long polls on EDGE_PORT until `stop`, then closes them."""
    edge = make_edge(settings, redis)
    health = health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port)
    listening = listener(settings.host, settings.edge_port)
    async with metrics_server(settings.host, settings.metrics_port), edge.running():
        app = edge_app(edge, health=health)
        await serve_app(app, listening, settings, stop=stop, on_shutdown=edge.shutdown)
