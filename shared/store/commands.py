"""Opens the Redis that the store runs on: our client with our scripts, metrics and error."""

from collections.abc import Mapping

from redis.asyncio import Redis

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.redis.cluster import pipeline_for
from shared.redis.pipeline import Hooks, RedisCommands, RedisUnavailable, Script
from shared.store.scripts import load_scripts


class _Unavailable(RedisUnavailable, StoreUnavailable):
    """The client raises it; services catch StoreUnavailable."""

    def __init__(self, *, why: str) -> None:
        StoreUnavailable.__init__(self, why=why)


HOOKS = Hooks(
    unavailable=_Unavailable,
    on_reply=telemetry.record_pipeline,
    on_error=telemetry.record_redis_error,
    on_lost=telemetry.lost_redis.add,
    on_recovered=telemetry.lost_redis.discard,
)


def commands_to(client: Redis, *, scripts: Mapping[str, Script] | None = None) -> RedisCommands:
    """Commands and scripts for the server or the cluster that this client connects to."""
    return pipeline_for(client, scripts=scripts or load_scripts(), hooks=HOOKS)
