"""A webhook's URL, whether it fails, and the request to retry now."""

import asyncio
import secrets
from dataclasses import dataclass

import orjson

from shared.model.callbacks import Callback
from shared.model.channels import ANY_DISPATCHER, Failing
from shared.model.errors import IsDisabled
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.wakeups import Wakeups


@dataclass(frozen=True, slots=True)
class Target:
    """Whose webhook it is, and where it is."""

    account: str
    url: str


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a webhook channel of one generation delivers to."""

    generation: str
    callback: Callback


class Webhooks:
    """Webhook channels as their API keys see them; the dispatcher that delivers holds a lease."""

    def __init__(self, redis: RedisCommands, wakeups: Wakeups) -> None:
        self._redis = redis
        self._wakeups = wakeups

    async def target(self, api_key_id: str) -> Target | None:
        """None when the API key or its webhook is gone. Raises StoreUnavailable."""
        account, url = await asyncio.gather(
            self._redis.command("HGET", keyspace.api_key(api_key_id), "account_id"),
            self._redis.command("HGET", keyspace.channel(api_key_id), "url"),
        )
        return None if account is None or url is None else Target(account.decode(), url.decode())

    async def setup(self, api_key_id: str) -> Setup | None:
        """As it is now; None when there is none. Raises StoreUnavailable."""
        name = keyspace.channel(api_key_id)
        generation, url, headers = await self._redis.command("HMGET", name, "generation", "url", "headers")
        if url is None:
            return None
        return Setup(generation.decode(), Callback(url.decode(), orjson.loads(headers)))

    async def failing(self, api_key_id: str) -> Failing | None:
        """Since when the webhook fails; None when its last attempt succeeded, or there is none."""
        since_ms, failed_attempts, next_attempt_ms = await self._redis.command(
            "HMGET", keyspace.channel(api_key_id), "failing_since_ms", "failed_attempts", "next_attempt_ms"
        )
        if since_ms is None:
            return None
        next_ms = None if next_attempt_ms is None else int(next_attempt_ms)
        return Failing(int(since_ms), int(failed_attempts or 0), next_ms)

    async def retry_now(self, api_key_id: str) -> bool:
        """Makes the next attempt due and wakes the dispatchers; False when there is no webhook.

        Raises IsDisabled.
        """
        names = [keyspace.channel(api_key_id)]
        found = await self._redis.script("webhook_retry", names, secrets.token_hex(8))
        if found < 0:
            raise IsDisabled
        if found:
            self._wakeups.send(ANY_DISPATCHER, api_key_id)
        return bool(found)
