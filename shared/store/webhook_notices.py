"""Notices for the account of a native webhook: kept in its channel until a dispatcher publishes them.

The scripts that disable a webhook, or give something up, write a notice in the same step. So it outlives the
dispatcher that made the attempt: the sweep finds it.
"""

from dataclasses import dataclass

import orjson

from shared.model.webhooks import Notice
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


@dataclass(frozen=True, slots=True)
class Notices:
    """The notices of a channel, oldest first, with whom they are for. `text` is as it was read."""

    account: str
    channel_name: str
    customer: str
    generation: str
    text: bytes
    notices: list[Notice]


class WebhookNotices:
    """Reads notices, and removes those that were published."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def read(self, channel: str) -> Notices | None:
        """None without any, or without the channel. Raises StoreUnavailable."""
        generation, text = await self._redis.command(
            "HMGET", keyspace.channel(channel), "generation", "notices"
        )
        if text is None:
            return None
        account, name, customer = await self._redis.command(
            "HMGET", keyspace.api_key(channel), "account_id", "name", "customer"
        )
        if account is None:
            return None
        notices = [_notice(line) for line in text.split(b"\n")]
        return Notices(
            account.decode(),
            (name or b"").decode(),
            (customer or b"").decode(),
            generation.decode(),
            text,
            notices,
        )

    async def remove(self, channel: str, found: Notices) -> None:
        """Those that were read; others that came meanwhile stay. Raises StoreUnavailable."""
        names = [keyspace.channel(channel)]
        await self._redis.script("webhook_noticed", names, found.generation, found.text)


def _notice(line: bytes) -> Notice:
    number, at_ms, kind, facts = line.split(b" ", 3)
    return Notice(int(number), int(at_ms), kind.decode(), orjson.loads(facts))
