"""arq's jobs by name: what happens later, or again and again. What a job does is its service's business."""

from collections.abc import Awaitable, Callable
from typing import Any

from arq.connections import ArqRedis
from arq.cron import CronJob, cron
from arq.worker import Worker

QUEUE = "notify:jobs"
REAP = "reap"
_POLL_S = 0.5


def reap_job(reap: Callable[[], Awaitable[None]], *, every_s: float, timeout_s: float) -> CronJob:
    """The reaper's round, by the clock: of several workers one runs each round."""

    async def run(ctx: dict[Any, Any], *_: Any, **__: Any) -> None:
        await reap()

    seconds, minutes = _times(every_s)
    return cron(run, name=REAP, second=seconds, minute=minutes, timeout=timeout_s, keep_result=0)


def worker(redis: ArqRedis, cron_jobs: list[CronJob]) -> Worker:
    """An arq worker. It ends when Redis drops, so whoever runs it runs it again."""
    return Worker(
        redis_pool=redis,
        queue_name=QUEUE,
        cron_jobs=cron_jobs,
        handle_signals=False,
        poll_delay=_POLL_S,
        keep_result=0,
        log_results=False,
    )


def _times(every_s: float) -> tuple[set[int], set[int] | None]:
    """The seconds of a minute, and the minutes of an hour, at which something is due every so often."""
    if every_s < 60:
        return set(range(0, 60, max(1, round(every_s)))), None
    return {0}, set(range(0, 60, min(60, round(every_s / 60))))
