"""Starts and stops a dispatcher: its deliveries, the arq worker that begins retries, a port for health."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from redis.asyncio import Redis

from services.composition import Stores, build_outbound, build_stores, jobs_redis, keep_working
from services.webhook_dispatcher.delivery import BatchLimits, Deliveries
from services.webhook_dispatcher.dispatcher import Dispatcher, Timing
from shared.jobs import RetryJobs
from shared.outbound import Outbound
from shared.runtime.clock import now_ms
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.server import listener
from shared.runtime.loops import end
from shared.runtime.settings import Settings
from shared.runtime.worker import serve_health


@contextlib.asynccontextmanager
async def dispatching(settings: Settings, redis: Redis, jobs: Redis) -> AsyncIterator[None]:
    """Delivers for as long as it is entered. Raises OSError when a certificate's file is unusable."""
    retries = RetryJobs(jobs)
    async with build_outbound(settings) as outbound:
        dispatcher = _make_dispatcher(settings, build_stores(settings, redis), outbound, retries)
        async with dispatcher.running():
            working = asyncio.create_task(
                keep_working(lambda: retries.worker(dispatcher.try_again), service="webhook-dispatcher")
            )
            try:
                yield
            finally:
                await end(working)


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Dispatches until `stop`; health and metrics are on DISPATCHER_PORT."""
    listening = listener(settings.host, settings.dispatcher_port)
    async with (
        metrics_server(settings.host, settings.metrics_port),
        jobs_redis(settings, redis) as jobs,
        dispatching(settings, redis, jobs),
    ):
        await serve_health(listening, stop=stop, metrics_port=settings.metrics_port)


def _make_dispatcher(
    settings: Settings, stores: Stores, outbound: Outbound, retries: RetryJobs
) -> Dispatcher:
    deliveries = Deliveries(
        batches=stores.batches,
        channels=stores.channels,
        queues=stores.queues,
        outbound=outbound,
        tries=retries,
        limits=BatchLimits(
            count=settings.batch_limit,
            size_bytes=settings.webhook_batch_bytes,
            expiry_ms=round(settings.webhook_expiry_s * 1000),
        ),
        now_ms=now_ms,
    )
    return Dispatcher(
        redis=stores.redis,
        leases=stores.leases,
        deliveries=deliveries,
        due=stores.due_webhooks,
        heartbeat=stores.heartbeat,
        instance=stores.instance,
        timing=Timing(heartbeat_s=settings.heartbeat_s, sweep_s=settings.sweep_s),
        requests=settings.webhook_requests,
        now_ms=now_ms,
    )
