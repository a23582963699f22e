"""The version of the data layout in Redis: a release touches no data of another layout."""

from shared.model.errors import WrongLayout
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


async def check_layout(redis: RedisCommands) -> None:
    """Writes the version of our layout into an empty Redis. Raises WrongLayout where another one is.

    A read first: a full Redis refuses writes, and must not stop a restart.
    """
    found = await redis.script("layout_read", [keyspace.LAYOUT])
    if found is None:
        await redis.command("SET", keyspace.LAYOUT, keyspace.LAYOUT_VERSION, "NX")
        # Another process may have been faster.
        found = await redis.script("layout_read", [keyspace.LAYOUT])
    if found != str(keyspace.LAYOUT_VERSION).encode():
        raise WrongLayout(found=(found or b"").decode(errors="replace"), ours=keyspace.LAYOUT_VERSION)
