"""Opens the Redis that the store runs on: our client with our scripts, our metrics and our error."""

from collections.abc import Mapping

from redis.asyncio import Redis

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.redis.cluster import pipeline_for
from shared.redis.errors import RedisUnavailable
from shared.redis.hooks import Hooks
from shared.redis.pipeline import RedisCommands, Script
from shared.store.scripts import load_scripts


class _Unavailable(RedisUnavailable, StoreUnavailable):
    """The client raises it, and services catch it as StoreUnavailable."""

    def __init__(self, *, why: str) -> None:
        StoreUnavailable.__init__(self, why=why)


HOOKS = Hooks(
    unavailable=_Unavailable,
    answered=telemetry.redis_answered,
    failed=telemetry.redis_failed,
    lost=telemetry.redis_lost,
    recovered=telemetry.redis_back,
)


def commands_to(client: Redis, *, scripts: Mapping[str, Script] | None = None) -> RedisCommands:
    """Commands and scripts for the server or the cluster that this client connects to."""
    return pipeline_for(client, scripts=scripts or load_scripts(), hooks=HOOKS)
