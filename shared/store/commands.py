"""Opens the Redis that the store runs on: our client with our scripts, metrics and error."""

import logging
from collections.abc import Mapping

from redis.asyncio import Redis

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.redis.cluster import pipeline_for
from shared.redis.pipeline import Hooks, RedisCommands, RedisUnavailable, Script
from shared.redis.reminders import shortened
from shared.store.scripts import load_scripts

logger = logging.getLogger(__name__)


class _Unavailable(RedisUnavailable, StoreUnavailable):
    """The client raises it; services catch StoreUnavailable."""

    def __init__(self, *, why: str) -> None:
        StoreUnavailable.__init__(self, why=why)


def words_of(error: BaseException) -> str:
    """The class of an error of Redis, and what the server said; for StoreUnavailable those of its cause."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) and error.__cause__ else error
    return f"{type(cause).__name__}: {shortened(str(cause))}"


def on_lost(client: object, error: Exception) -> None:
    """One line when Redis is lost, whatever the number of clients and of their calls."""
    if telemetry.is_redis_up():
        logger.warning("redis.lost", extra={"facts": {"why": words_of(error)}})
    telemetry.lost_redis.add(client)


def on_recovered(client: object) -> None:
    """One line when the last client that had lost its Redis has it back."""
    if client not in telemetry.lost_redis:
        return
    telemetry.lost_redis.discard(client)
    if telemetry.is_redis_up():
        logger.info("redis.recovered")


HOOKS = Hooks(
    unavailable=_Unavailable,
    on_reply=telemetry.record_pipeline,
    on_error=telemetry.record_redis_error,
    on_lost=on_lost,
    on_recovered=on_recovered,
)


def commands_to(client: Redis, *, scripts: Mapping[str, Script] | None = None) -> RedisCommands:
    """Commands and scripts for the server or the cluster that this client connects to."""
    return pipeline_for(client, scripts=scripts or load_scripts(), hooks=HOOKS)
