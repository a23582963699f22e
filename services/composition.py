"""The one place that builds stores, outbound calls and job queues from settings."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from socket import socket

from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import ASGIApp

from shared import telemetry
from shared.model.addresses import AddressPolicy
from shared.outbound.client import Outbound
from shared.redis.client import connect
from shared.runtime.clock import now_ms
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.server import serve
from shared.runtime.settings import Settings
from shared.store.api_keys import ApiKeys
from shared.store.batches import Batches
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.due_webhooks import DueWebhooks
from shared.store.idempotency import Idempotency
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


@dataclass(frozen=True, slots=True)
class Stores:
    """The store's nouns on one Redis. `redis` is the plain client, for subscriptions to wakeups."""

    redis: Redis
    api_keys: ApiKeys
    batches: Batches
    channels: Channels
    due_webhooks: DueWebhooks
    heartbeat: Heartbeat
    idempotency: Idempotency
    instance: str
    leases: Leases
    principals: Principals
    queues: Queues
    receipts: Receipts
    replicas: Replicas
    routing: Routing
    sessions: Sessions
    wakeups: Wakeups
    webhooks: Webhooks


def build_stores(settings: Settings, client: Redis) -> Stores:
    """The stores of one service, under an instance id of its own."""
    redis = commands_to(client)
    limits = QueueLimits(settings.queue_limit_bytes, round(settings.notification_lifetime_s * 1000))
    instance = new_instance_id(settings.replica)
    routing = Routing(redis, compiled)
    wakeups = Wakeups(redis)
    api_keys = ApiKeys(redis, routing, wakeups)
    return Stores(
        redis=client,
        api_keys=api_keys,
        batches=Batches(redis, limits=limits),
        channels=Channels(redis, routing, wakeups),
        due_webhooks=DueWebhooks(redis, instance=instance, now_ms=now_ms),
        heartbeat=Heartbeat(redis, instance=instance, ttl_ms=round(settings.heartbeat_ttl_s * 1000)),
        idempotency=Idempotency(redis),
        instance=instance,
        leases=Leases(redis),
        principals=Principals(api_keys),
        queues=Queues(redis, limits=limits),
        receipts=Receipts(redis),
        replicas=Replicas(redis),
        routing=routing,
        sessions=Sessions(redis, routing, wakeups, encode=encode_patterns),
        wakeups=wakeups,
        webhooks=Webhooks(redis, wakeups),
    )


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


@contextlib.asynccontextmanager
async def jobs_redis(settings: Settings, client: Redis) -> AsyncIterator[Redis]:
    """The Redis of the job queue: the one at JOBS_REDIS_URL, else `client`."""
    if settings.jobs_redis_url is None:
        yield client
        return
    async with connect(settings.jobs_redis_url) as jobs:
        yield jobs


async def serve_app(
    app: ASGIApp,
    listening: socket,
    settings: Settings,
    *,
    stop: asyncio.Event,
    on_shutdown: Callable[[], Awaitable[None]] | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serves the app until `stop`, behind CORS and the request log."""
    app = RequestLog(cross_origin(app, origins=settings.cors_origins), count=telemetry.request_answered)
    await serve(app, listening, stop=stop, on_shutdown=on_shutdown, started=on_start)


async def keep_working(make_worker: Callable[[], Worker], *, service: str) -> None:
    """Runs an arq worker for ever: a worker ends whenever its Redis drops."""
    while True:
        try:
            await make_worker().async_run()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("worker.ended", extra={"facts": {"service": service, "why": type(error).__name__}})
        except Exception:
            logger.exception("worker.failed", extra={"facts": {"service": service}})
        await asyncio.sleep(_RESTART_S)
