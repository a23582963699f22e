"""Starts and stops a reaper: an arq worker whose cron runs its rounds, and a port for health and metrics."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from arq.worker import Worker
from redis.asyncio import Redis

from services.composition import Stores
from services.expiry_reaper.reaper import Reaper
from services.serving import Readiness, serve_jobs, working
from shared import telemetry
from shared.clock import now_ms
from shared.jobs import reap_worker
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.runtime.settings import Settings

logger = logging.getLogger(__name__)

_NAME = "expiry-reaper"
# Expiry is late by a hundredth of its time at most: a round walks through everything.
_ROUNDS = 100
_LONGEST_S = 15 * 60


def reaping(
    settings: Settings, redis: Redis, jobs: Redis, readiness: Readiness
) -> AbstractAsyncContextManager[None]:
    """Runs rounds by the clock for as long as it is entered."""
    expiries_s = {Kind.WEBSOCKET: settings.websocket_expiry_s, Kind.PULL: settings.pull_expiry_s}
    if settings.channel_idle_expiry_s is not None:
        expiries_s[Kind.WEBHOOK] = settings.channel_idle_expiry_s
    every_s = min(*expiries_s.values(), settings.notification_lifetime_s) / _ROUNDS
    every_s = min(max(every_s, 1.0), _LONGEST_S)
    expiries_ms = {kind: round(expiry_s * 1000) for kind, expiry_s in expiries_s.items()}
    reaper = Reaper(Stores(settings, redis), idle_expiry_ms=expiries_ms)

    async def reap() -> None:
        began_ms = now_ms()
        try:
            done = await reaper.round(now_ms=began_ms)
        except StoreUnavailable as error:
            logger.warning("reaper.round-cut-short", extra={"facts": {"why": str(error)}})
            return
        telemetry.record_oldest_pending(done.oldest_pending_ms, now_ms=began_ms, every_s=every_s)

    def make_worker(on_working: Callable[[], None]) -> Worker:
        return reap_worker(jobs, reap, every_s=every_s, timeout_s=_LONGEST_S, on_working=on_working)

    return working(make_worker, service=_NAME, readiness=readiness)


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Reaps until `stop`; health and metrics are on REAPER_PORT."""
    await serve_jobs(_NAME, reaping, settings, redis, port=settings.reaper_port, stop=stop)
