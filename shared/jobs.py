"""arq's jobs by name: what happens later, or again and again. What a job does is its service's business."""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from arq.connections import ArqRedis
from arq.cron import CronJob, cron
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

QUEUE = "notify:jobs"
TRIES = "notify:retries"
REAP = "reap"
TRY = "try"
_POLL_S = 0.5
# A second is the shortest wait for a next try.
_TRIES_POLL_S = 0.1
_TRIES_AT_ONCE = 100
_TRY_S = 5.0


def connected(redis: Redis) -> ArqRedis:
    """arq's client on a pool of ours. Jobs are JSON: what lies in Redis must not become code."""
    return ArqRedis(
        pool_or_conn=redis.connection_pool, job_serializer=orjson.dumps, job_deserializer=orjson.loads
    )


def reap_job(reap: Callable[[], Awaitable[None]], *, every_s: float, timeout_s: float) -> CronJob:
    """The reaper's round, by the clock: of several workers one runs each round."""

    async def run(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:
        await reap()

    seconds, minutes = _times(every_s)
    return cron(run, name=REAP, second=seconds, minute=minutes, timeout=timeout_s, keep_result=0)


def reap_worker(redis: Redis, cron_jobs: list[CronJob]) -> Worker:
    """An arq worker. It ends when Redis drops, so whoever runs it runs it again."""
    return Worker(
        redis_pool=connected(redis),
        queue_name=QUEUE,
        cron_jobs=cron_jobs,
        handle_signals=False,
        poll_delay=_POLL_S,
        keep_result=0,
        log_results=False,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
    )


class RetryJobs:
    """RetryJobs of webhooks that happen later: one job for each, and one of all dispatchers runs it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = connected(redis)

    async def later(self, channel: str, *, number: int, at_ms: int) -> None:
        """Has this try made at about that time. If Redis is away nothing is written: the sweep makes it."""
        try:
            await self._redis.enqueue_job(
                TRY,
                channel,
                _queue_name=TRIES,
                _job_id=f"{channel}:{number}:{at_ms}",
                _defer_until=datetime.fromtimestamp(at_ms / 1000, UTC),
            )
        except (RedisError, OSError, TimeoutError) as error:
            facts = {"channel": channel, "why": type(error).__name__}
            logger.warning("retry.not-scheduled", extra={"facts": facts})

    def worker(self, make: Callable[[str], None]) -> Worker:
        """An arq worker that has `make` begin each try when it is due; it must not wait for its end.

        It ends when Redis drops, so whoever runs it runs it again.
        """

        async def run(ctx: dict[Any, Any], channel: str) -> None:
            make(channel)

        return Worker(
            [func(run, name=TRY)],
            redis_pool=self._redis,
            queue_name=TRIES,
            handle_signals=False,
            poll_delay=_TRIES_POLL_S,
            max_jobs=_TRIES_AT_ONCE,
            job_timeout=_TRY_S,
            keep_result=0,
            log_results=False,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
        )


def _times(every_s: float) -> tuple[set[int], set[int] | None]:
    """The seconds of a minute, and the minutes of an hour, at which something is due every so often."""
    if every_s < 60:
        return set(range(0, 60, max(1, round(every_s)))), None
    return {0}, set(range(0, 60, min(60, round(every_s / 60))))
