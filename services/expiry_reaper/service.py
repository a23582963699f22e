"""Starts and stops a reaper: an arq worker whose cron runs its rounds, and a port for health and metrics."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager

from arq.worker import Worker
from redis.asyncio import Redis

from services.composition import build_stores, serve_jobs, working
from services.expiry_reaper.reaper import Reaper
from shared import telemetry
from shared.jobs import reap_worker
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.runtime.clock import now_ms
from shared.runtime.settings import Settings

logger = logging.getLogger(__name__)

# Expiry is late by a hundredth of its time at most: a round walks through everything.
_ROUNDS = 100
_LONGEST_S = 15 * 60
# The ages that a round found stay on /metrics until this many rounds and seconds are missing.
_ROUNDS_SHOWN = 3
_AGES_SHOWN_S = 30.0


def make_reaper(settings: Settings, redis: Redis) -> Reaper:
    expiries_ms = {kind: round(expiry_s * 1000) for kind, expiry_s in _expiries_s(settings).items()}
    return Reaper(build_stores(settings, redis), idle_expiry_ms=expiries_ms)


def _expiries_s(settings: Settings) -> dict[Kind, float]:
    """The idle expiry of each kind of channel; a webhook has one only if the operator sets it."""
    always = {Kind.WEBSOCKET: settings.websocket_expiry_s, Kind.PULL: settings.pull_expiry_s}
    idle = settings.channel_idle_expiry_s
    return always if idle is None else {**always, Kind.WEBHOOK: idle}


def reaping(settings: Settings, redis: Redis, jobs: Redis) -> AbstractAsyncContextManager[None]:
    """Runs rounds by the clock for as long as it is entered."""
    reaper = make_reaper(settings, redis)
    shortest_s = min(*_expiries_s(settings).values(), settings.notification_lifetime_s)
    every_s = min(max(shortest_s / _ROUNDS, 1.0), _LONGEST_S)

    async def reap() -> None:
        await _reap(reaper, every_s=every_s)

    def make_worker() -> Worker:
        return reap_worker(jobs, reap, every_s=every_s, timeout_s=_LONGEST_S)

    return working(make_worker, service="expiry-reaper")


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Reaps until `stop`; health and metrics are on REAPER_PORT."""
    await serve_jobs(reaping, settings, redis, port=settings.reaper_port, stop=stop)


async def _reap(reaper: Reaper, *, every_s: float) -> None:
    began_ms = now_ms()
    try:
        done = await reaper.round(now_ms=began_ms)
    except StoreUnavailable as error:
        logger.warning("reaper.round-cut-short", extra={"facts": {"why": str(error)}})
        return
    # The next rounds may run in another reaper: what this one found must not stay on /metrics for ever.
    good_for_s = _ROUNDS_SHOWN * every_s + _AGES_SHOWN_S
    telemetry.record_oldest_pending(done.oldest_pending_ms, now_ms=began_ms, good_for_s=good_for_s)
