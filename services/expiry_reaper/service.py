"""Starts and stops a reaper: an arq worker whose cron starts rounds, and a port for health and metrics."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from arq.worker import Worker
from redis.asyncio import Redis

from services.composition import Stores
from services.expiry_reaper.reaper import Reaper, Schedule
from services.expiry_reaper.visits import Lifetimes
from services.serving import Readiness, serve_jobs, working
from shared import telemetry
from shared.jobs import reap_worker
from shared.model.channels import Kind
from shared.model.errors import StoreUnavailable
from shared.runtime.settings import Settings
from shared.store.commands import words_of
from shared.store.rounds import RoundLost

logger = logging.getLogger(__name__)

_NAME = "expiry-reaper"
# Expiry is late by a hundredth of its time at most, and by a few seconds.
_ROUNDS = 100
_SHORTEST_S = 1.0
_LONGEST_S = 5.0
# The steps of a round take half of it at most. The job of a killed worker is given up then.
_ROUND_LIMIT_S = 60.0
# The age of the oldest pending notification is measured in each second round.
_MEASURED_ROUNDS = 2


def reaping(
    settings: Settings, redis: Redis, jobs: Redis, readiness: Readiness
) -> AbstractAsyncContextManager[None]:
    """Runs rounds by the clock for as long as it is entered."""
    expiries_s = {Kind.WEBSOCKET: settings.websocket_expiry_s, Kind.PULL: settings.pull_expiry_s}
    if settings.channel_idle_expiry_s is not None:
        expiries_s[Kind.WEBHOOK] = settings.channel_idle_expiry_s
    every_s = min(*expiries_s.values(), settings.notification_lifetime_s) / _ROUNDS
    every_s = min(max(every_s, _SHORTEST_S), _LONGEST_S)
    lifetimes = Lifetimes(
        idle_expiry_ms={kind: round(expiry_s * 1000) for kind, expiry_s in expiries_s.items()},
        notification_ms=round(settings.notification_lifetime_s * 1000),
    )
    schedule = Schedule(
        every_s=every_s,
        heartbeat_s=settings.heartbeat_s,
        heartbeat_ttl_s=settings.heartbeat_ttl_s,
        reconcile_every_s=settings.reconcile_every_s,
        reconcile_commands_per_s=settings.reconcile_commands_per_s,
    )
    stores = Stores(settings, redis)
    reaper = Reaper(stores, lifetimes, schedule)

    async def reap() -> None:
        result = "failed"
        try:
            await stores.account_deletion.finish_all()
            done = await reaper.round()
            result = "standby" if done is None else "done"
        except StoreUnavailable as error:
            logger.warning("reaper.round-cut-short", extra={"facts": {"why": words_of(error)}})
            return
        except RoundLost:
            logger.warning("reaper.round-lost")
            return
        finally:
            telemetry.reaper_rounds.add(1, {"result": result})
        if done is not None and done.oldest_pending_ms is not None:
            telemetry.record_oldest_pending(
                done.oldest_pending_ms, now_ms=done.now_ms, every_s=_MEASURED_ROUNDS * every_s
            )
            telemetry.record_memory(await stores.memory.used_and_limit(), every_s=_MEASURED_ROUNDS * every_s)

    def make_worker(on_working: Callable[[], None]) -> Worker:
        return reap_worker(jobs, reap, every_s=every_s, timeout_s=_ROUND_LIMIT_S, on_working=on_working)

    return working(make_worker, service=_NAME, readiness=readiness)


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Reaps until `stop`; health and metrics are on REAPER_PORT."""
    await serve_jobs(_NAME, reaping, settings, redis, port=settings.reaper_port, stop=stop)
