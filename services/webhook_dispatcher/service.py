"""Starts and stops a dispatcher: its visits, the arq worker that begins later tries, a port for health."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.webhook_dispatcher.delivery import BatchLimits, Deliveries
from services.webhook_dispatcher.dispatcher import Dispatcher, Timing
from shared.jobs import RetryJobs
from shared.model.addresses import AddressPolicy
from shared.outbound.client import Outbound
from shared.runtime.clock import now_ms
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.server import listener
from shared.runtime.loops import end
from shared.runtime.settings import Settings
from shared.runtime.worker import jobs_redis, serve_health
from shared.store.batches import Batches
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.due_webhooks import DueWebhooks
from shared.store.leases import Leases
from shared.store.queues import QueueLimits, Queues
from shared.store.replicas import Heartbeat, new_instance_id
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0


@contextlib.asynccontextmanager
async def dispatching(settings: Settings, redis: Redis, jobs: Redis) -> AsyncIterator[None]:
    """Delivers for as long as it is entered. Raises OSError when a certificate's file cannot be used."""
    tries = RetryJobs(jobs)
    async with _outbound(settings) as outbound:
        dispatcher = _make_dispatcher(settings, redis, outbound=outbound, tries=tries)
        async with dispatcher.running():
            working = asyncio.create_task(_work(tries, dispatcher))
            try:
                yield
            finally:
                await end(working)


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Dispatches until `stop`; health and metrics are on DISPATCHER_PORT."""
    listening = listener(settings.host, settings.dispatcher_port)
    async with (
        metrics_server(settings.host, settings.metrics_port),
        jobs_redis(settings.jobs_redis_url, otherwise=redis) as jobs,
        dispatching(settings, redis, jobs),
    ):
        await serve_health(listening, stop=stop, metrics_port=settings.metrics_port)


def _outbound(settings: Settings) -> Outbound:
    return Outbound(
        policy=AddressPolicy(settings.allow_private_callbacks),
        timeout_s=settings.callback_timeout_s,
        calls_at_once=settings.webhook_requests,
        client_cert=settings.callback_client_cert,
        client_key=settings.callback_client_key,
        ca=settings.callback_ca,
    )


def _make_dispatcher(settings: Settings, redis: Redis, *, outbound: Outbound, tries: RetryJobs) -> Dispatcher:
    calls = commands_to(redis)
    limits = QueueLimits.of(settings.queue_limit_bytes, settings.notification_lifetime_s)
    instance = new_instance_id(settings.replica)
    return Dispatcher(
        redis=redis,
        leases=Leases(calls),
        deliveries=Deliveries(
            batches=Batches(calls, limits=limits),
            channels=Channels(calls, Routing(calls, compiled), Wakeups(calls)),
            queues=Queues(calls, limits=limits),
            outbound=outbound,
            retries=tries,
            limits=BatchLimits(
                count=settings.batch_limit,
                size_bytes=settings.webhook_batch_bytes,
                expiry_ms=round(settings.webhook_expiry_s * 1000),
            ),
            now_ms=now_ms,
        ),
        due=DueWebhooks(calls, instance=instance, now_ms=now_ms),
        heartbeat=Heartbeat(calls, instance=instance, ttl_ms=round(settings.heartbeat_ttl_s * 1000)),
        instance=instance,
        timing=Timing(heartbeat_s=settings.heartbeat_s, sweep_s=settings.sweep_s),
        requests=settings.webhook_requests,
        now_ms=now_ms,
    )


async def _work(tries: RetryJobs, dispatcher: Dispatcher) -> None:
    while True:
        try:
            await tries.worker(dispatcher.retry).async_run()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("dispatcher.worker-ended", extra={"facts": {"why": type(error).__name__}})
        except Exception:
            logger.exception("dispatcher.worker-failed")
        await asyncio.sleep(_AGAIN_S)
