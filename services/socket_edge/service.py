"""Starts and stops an edge."""

import asyncio

from redis.asyncio import Redis

from services.socket_edge.app import edge_app
from services.socket_edge.edge import Edge, Stores, Timing
from services.socket_edge.leased_socket import Limits
from services.socket_edge.session_socket import SessionLimits
from shared import telemetry
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.health import health_routes
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.server import listener, serve
from shared.runtime.settings import Settings
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.leases import Leases
from shared.store.queues import QueueLimits, Queues
from shared.store.replicas import Heartbeat, new_instance_id
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.wakeups import Wakeups
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import stored_wanted


def make_edge(settings: Settings, redis: Redis) -> Edge:
    calls = commands_to(redis)
    wakeups = Wakeups(calls)
    routing = Routing(calls, compiled)
    api_keys = ApiKeys(calls, routing, wakeups)
    instance = new_instance_id(settings.replica)
    return Edge(
        Stores(
            redis=redis,
            api_keys=api_keys,
            channels=Channels(calls, routing, wakeups),
            leases=Leases(calls),
            queues=Queues(
                calls, limits=QueueLimits.of(settings.queue_limit_bytes, settings.notification_lifetime_s)
            ),
            wakeups=wakeups,
            principals=Principals(api_keys),
            sessions=Sessions(calls, routing, wakeups, stored=stored_wanted),
        ),
        Heartbeat(calls, instance=instance, ttl_ms=round(settings.heartbeat_ttl_s * 1000)),
        instance=instance,
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
    """Serves sockets and long polls on EDGE_PORT until `stop`, then lets them go."""
    edge = make_edge(settings, redis)
    health = health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port)
    app = edge_app(edge, health=health)
    app = cross_origin(app, origins=settings.cors_origins)
    listening = listener(settings.host, settings.edge_port)
    async with metrics_server(settings.host, settings.metrics_port), edge.running():
        await serve(
            RequestLog(app, count=telemetry.request_answered), listening, stop=stop, on_shutdown=edge.shutdown
        )
