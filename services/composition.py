"""The one place that builds stores, outbound calls and job queues from settings."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from socket import socket
from types import MappingProxyType

from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.clock import now_ms
from shared.model.addresses import AddressPolicy
from shared.model.errors import StoreUnavailable
from shared.outbound.client import Outbound
from shared.publish.round import PublishStores
from shared.redis.client import connect
from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.hot_routes import HotRoutes
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.responses import (
    internal_error_response,
    problem_response,
    refuse_handshake,
    unavailable,
)
from shared.runtime.http.server import listener, serve
from shared.runtime.loops import in_background
from shared.runtime.settings import Settings
from shared.store.api_keys import ApiKeys
from shared.store.batches import Batches
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.due_webhooks import DueWebhooks
from shared.store.idempotency import Idempotency
from shared.store.layout import check_layout
from shared.store.leases import Leases
from shared.store.queues import QueueLimits, Queues
from shared.store.receipts import Receipts
from shared.store.replicas import Heartbeat, Replicas, new_instance_id
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.wakeups import Wakeups
from shared.store.webhooks import Webhooks
from shared.tokens import Principals
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns

logger = logging.getLogger(__name__)

_RESTART_S = 1.0
_REDIS_RETRY_S = 0.25


class Stores:
    """The store's nouns for one service, under an instance id of its own.

    `redis` is the plain client, for subscriptions to wakeups.
    """

    def __init__(self, settings: Settings, client: Redis) -> None:
        redis = commands_to(client)
        limits = QueueLimits(settings.queue_limit_bytes, round(settings.notification_lifetime_s * 1000))
        self.redis = client
        self.instance = new_instance_id(settings.replica)
        self.routing = Routing(redis, compiled)
        self.wakeups = Wakeups(redis)
        self.api_keys = ApiKeys(redis, self.routing, self.wakeups)
        self.batches = Batches(redis, limits=limits)
        self.channels = Channels(redis, self.routing, self.wakeups)
        self.due_webhooks = DueWebhooks(redis, instance=self.instance, now_ms=now_ms)
        self.heartbeat = Heartbeat(
            redis, instance=self.instance, ttl_ms=round(settings.heartbeat_ttl_s * 1000)
        )
        self.idempotency = Idempotency(redis)
        self.leases = Leases(redis)
        self.principals = Principals(self.api_keys)
        self.queues = Queues(redis, limits=limits)
        self.receipts = Receipts(redis)
        self.replicas = Replicas(redis)
        self.sessions = Sessions(redis, self.routing, self.wakeups, encode=encode_patterns)
        self.webhooks = Webhooks(redis, self.wakeups)
        self.for_publishing = PublishStores(self.routing, self.queues, self.sessions, self.receipts)


def build_outbound(settings: Settings) -> Outbound:
    """Calls to customers' URLs. Enter it before use. Raises OSError when a certificate's file is unusable."""
    return Outbound(
        policy=AddressPolicy(settings.allow_private_callbacks),
        timeout_s=settings.callback_timeout_s,
        calls_at_once=settings.webhook_requests,
        client_cert=settings.callback_client_cert,
        client_key=settings.callback_client_key,
        ca=settings.callback_ca,
    )


def jobs_redis(settings: Settings, client: Redis) -> AbstractAsyncContextManager[Redis]:
    """The Redis of the job queue: the one at JOBS_REDIS_URL, else `client`."""
    url = settings.jobs_redis_url
    return nullcontext(client) if url is None else connect(url)


async def has_our_layout(settings: Settings, redis: Redis, *, port: int, stop: asyncio.Event) -> bool:
    """Waits until Redis is there and has our data layout; False when `stop` was set before.

    Until then only `/livez` is served on `port`, and everything else is a 503. Raises WrongLayout.
    """
    commands = commands_to(redis)
    with contextlib.suppress(StoreUnavailable):
        await check_layout(commands)
        return True
    logger.warning("redis.awaited")
    ready = asyncio.Event()
    async with metrics_server(settings.host, settings.metrics_port):
        app = Starlette(
            routes=[
                *health_routes(lambda: False, metrics_port=settings.metrics_port),
                Mount("", app=_unavailable),
            ],
            exception_handlers={HTTPException: problem_response},
        )
        serving = asyncio.create_task(serve_app(app, listener(settings.host, port), settings, stop=ready))
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _REDIS_RETRY_S)
                    return False
                with contextlib.suppress(StoreUnavailable):
                    await check_layout(commands)
                    return True
        finally:
            ready.set()
            await serving


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "websocket":
        raise unavailable()
    await receive()
    await refuse_handshake(scope, send, unavailable())


async def serve_app(
    app: ASGIApp,
    listening: socket,
    settings: Settings,
    *,
    stop: asyncio.Event,
    on_shutdown: Callable[[], Awaitable[None]] | None = None,
    on_start: Callable[[], None] = lambda: None,
    hot_routes: HotRoutes = MappingProxyType({}),
) -> None:
    """Serves the app until `stop`, behind CORS and the request log; hot routes do without."""
    app = RequestLog(cross_origin(app, origins=settings.cors_origins))
    arrivals = Arrivals(
        most=settings.max_arriving_connections,
        most_per_address=settings.max_arriving_connections_per_address,
        trusted=settings.trusted_proxies,
    )
    await serve(
        app,
        listening,
        stop=stop,
        arrivals=arrivals,
        on_shutdown=on_shutdown,
        on_start=on_start,
        hot_routes=hot_routes,
    )


async def serve_jobs(
    work: Callable[[Settings, Redis, Redis], AbstractAsyncContextManager[None]],
    settings: Settings,
    redis: Redis,
    *,
    port: int,
    stop: asyncio.Event,
) -> None:
    """Runs a service of jobs until `stop`; health and metrics are on `port`."""
    listening = listener(settings.host, port)
    app = Starlette(
        routes=health_routes(lambda: not stop.is_set(), metrics_port=settings.metrics_port),
        exception_handlers={HTTPException: problem_response, Exception: internal_error_response},
    )
    async with (
        metrics_server(settings.host, settings.metrics_port),
        jobs_redis(settings, redis) as jobs,
        work(settings, redis, jobs),
    ):
        await serve_app(app, listening, settings, stop=stop)


def working(make_worker: Callable[[], Worker], *, service: str) -> AbstractAsyncContextManager[None]:
    """Runs an arq worker while entered, and another one whenever it ends: it does when Redis drops."""

    async def work() -> None:
        try:
            await make_worker().async_run()
        except (RedisError, OSError) as error:
            logger.warning("worker.ended", extra={"facts": {"service": service, "why": type(error).__name__}})
        except Exception:
            logger.exception("worker.failed", extra={"facts": {"service": service}})
        await asyncio.sleep(_RESTART_S)

    return in_background(work)
