"""The secrets that sign a webhook: they lie in the record of its API key, or of the native channel."""

from collections.abc import Sequence

from shared.model.errors import KeyRevoked
from shared.model.signing_secrets import SigningSecret
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


class SigningSecrets:
    """Secrets by the id of an API key or a channel, newest first. Redis' clock ends them."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def read(self, channel: str) -> list[SigningSecret]:
        """Those that sign now. Raises KeyRevoked."""
        return await self.made(channel, offered="")

    async def made(self, channel: str, *, offered: str) -> list[SigningSecret]:
        """The same; stores the one offered if there is none. Raises KeyRevoked."""
        status, *lines = await self._redis.script("secrets_read", [keyspace.api_key(channel)], offered)
        if status == b"revoked":
            raise KeyRevoked
        return _secrets(lines)


def _secrets(lines: Sequence[bytes]) -> list[SigningSecret]:
    return [_secret(*line.decode().split(" ")) for line in lines]


def _secret(secret_id: str, made_ms: str, ends_ms: str, text: str) -> SigningSecret:
    return SigningSecret(secret_id, int(made_ms), None if ends_ms == "-" else int(ends_ms), text)
