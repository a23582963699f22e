"""Starts and stops an edge."""

import asyncio

from redis.asyncio import Redis

from services.socket_edge.app import edge_app
from services.socket_edge.edge import Edge, Stores, Timing
from services.socket_edge.hold import Limits
from services.socket_edge.session_sockets import SessionLimits
from shared import telemetry
from shared.runtime.cross_origin import cross_origin
from shared.runtime.health import health_routes
from shared.runtime.metrics_port import metrics_apart
from shared.runtime.requests import Requests
from shared.runtime.serving import listener, serve
from shared.runtime.settings import Settings
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.cluster_calls import calls_to
from shared.store.leases import Leases
from shared.store.nudges import Nudges
from shared.store.queues import QueueLimits, Queues
from shared.store.replicas import Heartbeat, new_boot
from shared.store.routes import Routing
from shared.store.sessions import Sessions
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import stored_wanted


def make_edge(settings: Settings, redis: Redis) -> Edge:
    calls = calls_to(redis)
    nudges = Nudges(calls)
    routing = Routing(calls, compiled)
    api_keys = ApiKeys(calls, routing, nudges)
    boot = new_boot(settings.replica)
    return Edge(
        Stores(
            redis=redis,
            api_keys=api_keys,
            channels=Channels(calls, routing, nudges),
            leases=Leases(calls),
            queues=Queues(
                calls, limits=QueueLimits.of(settings.queue_limit_bytes, settings.notification_lifetime_s)
            ),
            nudges=nudges,
            principals=Principals(api_keys),
            sessions=Sessions(calls, routing, nudges, stored=stored_wanted),
        ),
        Heartbeat(calls, boot=boot, ttl_ms=round(settings.heartbeat_ttl_s * 1000)),
        boot=boot,
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
            redis_away_limit_s=settings.redis_away_limit_s,
            long_poll_wait_s=settings.long_poll_wait_s,
            drain_settle_s=settings.drain_settle_s,
            drain_window_s=settings.drain_window_s,
        ),
        session_limits=SessionLimits(
            ping_interval_s=settings.ping_interval_s,
            ping_timeout_s=settings.ping_timeout_s,
            idle_s=settings.blackhole_idle_s,
            most_per_address=settings.max_sockets_per_address,
            destination=settings.replica,
            trusted_proxies=settings.trusted_proxies,
        ),
        close_codes=settings.pelion_close_codes,
    )


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Serves sockets and long polls on EDGE_PORT until `stop`, then lets them go."""
    edge = make_edge(settings, redis)
    health = health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port)
    app = edge_app(edge, health=health)
    app = cross_origin(app, origins=settings.cors_origins)
    listening = listener(settings.host, settings.edge_port)
    async with metrics_apart(settings.host, settings.metrics_port), edge.running():
        await serve(
            Requests(app, count=telemetry.request_answered), listening, stop=stop, goodbye=edge.goodbye
        )
