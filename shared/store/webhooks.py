"""How deliveries to a webhook have gone, and the wish that the next one be tried now."""

import secrets

import orjson

from shared.model.channels import ANY_DISPATCHER, Failing
from shared.model.deliveries import Delivery
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.wakeups import Wakeups

SHOWN = 100


class Webhooks:
    """Looks at webhook channels from outside; what delivers to them holds a lease."""

    def __init__(self, redis: RedisCommands, wakeups: Wakeups) -> None:
        self._redis = redis
        self._wakeups = wakeups

    async def deliveries(self, api_key_id: str) -> list[Delivery]:
        """The last attempts, newest first; those of a webhook that is gone are kept for a while."""
        noted = await self._redis.command("LRANGE", keyspace.deliveries(api_key_id), 0, SHOWN - 1)
        return [Delivery(**orjson.loads(note)) for note in noted]

    async def failing(self, api_key_id: str) -> Failing | None:
        """For how long the webhook has failed; None when its last try did not, or there is none."""
        name = keyspace.channel(api_key_id)
        since, tries, next_try = await self._redis.command(
            "HMGET", name, "failing_since_ms", "failed_attempts", "next_attempt_ms"
        )
        if since is None:
            return None
        return Failing(int(since), int(tries or 0), None if next_try is None else int(next_try))

    async def retry_now(self, api_key_id: str) -> bool:
        """Lets the webhook be tried now, and wakeups the dispatchers; False when there is none."""
        is_webhook = await self._redis.script(
            "webhook_retry", [keyspace.channel(api_key_id)], secrets.token_hex(8)
        )
        if is_webhook:
            self._wakeups.send(ANY_DISPATCHER, api_key_id)
        return bool(is_webhook)
