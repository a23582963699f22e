"""arq's queues and jobs by name: the reaper's rounds, and retries of webhook deliveries.

arq judges by the clock of its process which jobs are due. Here it gets Redis' time instead: with a clock that
is ahead a dispatcher would take each retry before its time, and none would retry at that time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Self

import arq.connections
import arq.worker
import orjson
from arq.connections import ArqRedis
from arq.cron import cron
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.clock import now_ms

logger = logging.getLogger(__name__)

_QUEUE = "notify:jobs"
_RETRIES = "notify:retries"
_REAP = "reap"
_RETRY = "retry"
_POLL_S = 0.5
# The shortest backoff is a second.
_RETRY_POLL_S = 0.1
_CONCURRENT_RETRIES = 100
_RETRY_TIMEOUT_S = 5.0
_END_S = 1.0
# A retry that comes a millisecond early is not due, and then waits for the sweep.
_RETRY_MARGIN_MS = 50


class _RedisTime(datetime):
    """What arq calls `datetime`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(now_ms() / 1000, tz)


# arq has no parameter for its clock.
vars(arq.worker).update(datetime=_RedisTime, timestamp_ms=now_ms)
vars(arq.connections).update(timestamp_ms=now_ms)


class _Worker(Worker):
    """Calls `on_working` after each poll of its queue. A cancelled one takes its jobs along."""

    def __init__(self, *, on_working: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._on_working = on_working

    async def heart_beat(self) -> None:
        await super().heart_beat()
        self._on_working()

    async def async_run(self) -> None:
        try:
            await super().async_run()
        except asyncio.CancelledError:
            await self._end_jobs()
            raise

    async def _end_jobs(self) -> None:
        """Lets jobs give themselves back to the queue while their Redis is there. Does not wait for long."""
        for job in (jobs := [*self.tasks.values()]):
            job.cancel()
        if jobs:
            done, _ = await asyncio.wait(jobs, timeout=_END_S)
            for job in done:
                # Else the event loop logs the error of one that has lost its Redis.
                _ = job.cancelled() or job.exception()


async def _no_info(*_: Any) -> None:
    """arq logs INFO and DBSIZE at its start; a Redis user without these rights could never work."""


vars(arq.worker).update(log_redis_info=_no_info)


def reap_worker(
    redis: Redis,
    reap: Callable[[], Awaitable[None]],
    *,
    every_s: float,
    timeout_s: float,
    on_working: Callable[[], None] = lambda: None,
) -> Worker:
    """An arq worker that reaps by the clock; of several workers one runs each round.

    It calls `on_working` each time it has asked for work. It ends when Redis drops; run another one.
    """

    async def run(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:
        await reap()

    seconds, minutes = _cron_times(every_s)
    job = cron(run, name=_REAP, second=seconds, minute=minutes, timeout=timeout_s, keep_result=0)
    return _worker(
        _arq_redis(redis), queue_name=_QUEUE, cron_jobs=[job], poll_delay=_POLL_S, on_working=on_working
    )


class RetryJobs:
    """Retries of webhook deliveries. `retry` is called with each channel that is due; it must return at once.

    Any dispatcher runs a job; the sweep makes up for a lost one.
    """

    def __init__(self, redis: Redis, retry: Callable[[str], None]) -> None:
        self._redis = _arq_redis(redis)
        self._retry = retry

    async def schedule(self, channel: str, *, failed_attempts: int, at_ms: int) -> None:
        """Schedules the next attempt. Without Redis it logs a warning, and this process keeps the time."""
        try:
            await self._redis.enqueue_job(
                _RETRY,
                channel,
                _queue_name=_RETRIES,
                _job_id=f"{channel}:{failed_attempts}:{at_ms}",
                _defer_until=datetime.fromtimestamp((at_ms + _RETRY_MARGIN_MS) / 1000, UTC),
            )
        except (RedisError, OSError) as exc:
            facts = {"channel": channel, "error": type(exc).__name__}
            logger.warning("retry.not-scheduled", extra={"facts": facts})
            delay_s = max(0, at_ms + _RETRY_MARGIN_MS - now_ms()) / 1000
            asyncio.get_running_loop().call_later(delay_s, self._retry, channel)

    def worker(self, *, on_working: Callable[[], None] = lambda: None) -> Worker:
        """An arq worker that runs the jobs. It calls `on_working` each time it has asked for work.

        It ends when Redis drops; run another one.
        """

        async def run(ctx: dict[Any, Any], channel: str) -> None:
            self._retry(channel)

        return _worker(
            self._redis,
            queue_name=_RETRIES,
            functions=[func(run, name=_RETRY)],
            poll_delay=_RETRY_POLL_S,
            max_jobs=_CONCURRENT_RETRIES,
            job_timeout=_RETRY_TIMEOUT_S,
            on_working=on_working,
        )


def _arq_redis(redis: Redis) -> ArqRedis:
    """arq's client on our connection pool. Jobs are JSON: pickle, arq's default, runs code from Redis."""
    return ArqRedis(
        pool_or_conn=redis.connection_pool, job_serializer=orjson.dumps, job_deserializer=orjson.loads
    )


def _worker(redis: ArqRedis, **options: Any) -> Worker:
    return _Worker(
        redis_pool=redis,
        handle_signals=False,
        keep_result=0,
        log_results=False,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
        **options,
    )


def _cron_times(every_s: float) -> tuple[set[int], set[int] | None]:
    """The seconds of a minute, and the minutes of an hour, for a job that runs about every `every_s`."""
    if every_s < 60:
        return set(range(0, 60, max(1, round(every_s)))), None
    return {0}, set(range(0, 60, min(60, round(every_s / 60))))
