"""Starts and stops a reaper: an arq worker whose cron runs its rounds, and a port for health and metrics."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.expiry_reaper.reaper import Reaper
from shared import telemetry
from shared.jobs import reap_job, reap_worker
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.runtime.http.metrics_server import metrics_server
from shared.runtime.http.server import listener
from shared.runtime.loops import end
from shared.runtime.settings import Settings
from shared.runtime.worker import jobs_redis, serve_health
from shared.store.channels import Channels
from shared.store.commands import commands_to
from shared.store.queues import QueueLimits, Queues
from shared.store.replicas import Replicas
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns

logger = logging.getLogger(__name__)

# A round looks at everything, so what is due goes within a hundredth of its time, but a minute at the least.
_ROUNDS = 100
_LONGEST_S = 15 * 60
_AGAIN_S = 1.0
# What a round has found is shown until the next is overdue by so many, and so long.
_ROUNDS_SHOWN = 3
_AGES_SHOWN_S = 30.0


def make_reaper(settings: Settings, redis: Redis) -> Reaper:
    calls = commands_to(redis)
    routing = Routing(calls, compiled)
    wakeups = Wakeups(calls)
    limits = QueueLimits.of(settings.queue_limit_bytes, settings.notification_lifetime_s)
    return Reaper(
        channels=Channels(calls, routing, wakeups),
        queues=Queues(calls, limits=limits),
        replicas=Replicas(calls),
        routing=routing,
        sessions=Sessions(calls, routing, wakeups, stored=encode_patterns),
        idle_expiry_ms={kind: round(expiry_s * 1000) for kind, expiry_s in _expiries_s(settings).items()},
    )


def _expiries_s(settings: Settings) -> dict[Kind, float]:
    """After how long a channel of a kind is over; a webhook only if the operator wants that."""
    always = {Kind.WEBSOCKET: settings.websocket_expiry_s, Kind.PULL: settings.pull_expiry_s}
    idle = settings.channel_idle_expiry_s
    return always if idle is None else {**always, Kind.WEBHOOK: idle}


@contextlib.asynccontextmanager
async def reaping(settings: Settings, redis: Redis, jobs: Redis) -> AsyncIterator[None]:
    """Rounds by the clock for as long as it is entered."""
    task = asyncio.create_task(_work(settings, make_reaper(settings, redis), jobs))
    try:
        yield
    finally:
        await end(task)


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Reaps until `stop`; health and metrics are on REAPER_PORT."""
    listening = listener(settings.host, settings.reaper_port)
    async with (
        metrics_server(settings.host, settings.metrics_port),
        jobs_redis(settings.jobs_redis_url, otherwise=redis) as jobs,
        reaping(settings, redis, jobs),
    ):
        await serve_health(listening, stop=stop, metrics_port=settings.metrics_port)


async def _work(settings: Settings, reaper: Reaper, jobs: Redis) -> None:
    async def reap() -> None:
        now_ms = time.time_ns() // 1_000_000
        try:
            done = await reaper.round(now_ms=now_ms)
        except StoreUnavailable as error:
            logger.warning("reaper.round-cut-short", extra={"facts": {"why": str(error)}})
        else:
            # Rounds may be another reaper's for a while, and what was found here is then old.
            shown_s = _ROUNDS_SHOWN * every_s + _AGES_SHOWN_S
            telemetry.record_oldest_pending(done.oldest_pending_ms, now_ms=now_ms, good_for_s=shown_s)

    shortest_s = min(*_expiries_s(settings).values(), settings.notification_lifetime_s)
    every_s = min(max(shortest_s / _ROUNDS, 1.0), _LONGEST_S)
    while True:
        try:
            job = reap_job(reap, every_s=every_s, timeout_s=_LONGEST_S)
            await reap_worker(jobs, [job]).async_run()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("reaper.worker-ended", extra={"facts": {"why": type(error).__name__}})
        except Exception:
            logger.exception("reaper.worker-failed")
        await asyncio.sleep(_AGAIN_S)
