"""The secrets that sign a webhook: they lie in the record of its API key, or of the native channel."""

from collections.abc import Sequence

from shared.model.errors import KeyRevoked, NewestSecret, TooManySecrets
from shared.model.signing_secrets import MOST_SECRETS, SigningSecret, new_secret_id
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

    async def add(self, channel: str, text: str, *, overlap_ms: int) -> list[SigningSecret]:
        """Makes this one the newest, and ends those before it after the overlap. Returns all.

        Raises KeyRevoked, TooManySecrets.
        """
        names = [keyspace.api_key(channel)]
        status, *found = await self._redis.script(
            "secret_add", names, new_secret_id(), text, overlap_ms, MOST_SECRETS
        )
        if status == b"revoked":
            raise KeyRevoked
        if status == b"full":
            raise TooManySecrets(until_ms=int(found[0]))
        return _secrets(found)

    async def end(self, channel: str, secret_id: str) -> bool:
        """Ends one before its time; False when it is not there. Raises NewestSecret."""
        status = await self._redis.script("secret_end", [keyspace.api_key(channel)], secret_id)
        if status == b"newest":
            raise NewestSecret
        return bool(status == b"ended")


def _secrets(lines: Sequence[bytes]) -> list[SigningSecret]:
    return [_secret(*line.decode().split(" ")) for line in lines]


def _secret(secret_id: str, made_ms: str, ends_ms: str, text: str) -> SigningSecret:
    return SigningSecret(secret_id, int(made_ms), None if ends_ms == "-" else int(ends_ms), text)
