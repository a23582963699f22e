"""Quotas of accounts: the installation's, and what an account's record overrides.

A script that judges a quota gets the installation's as an argument and reads the override itself, as
`HGET {account}:account quota:<name>`: so a change counts at once, everywhere.
"""

from collections.abc import Mapping

from shared.model.quotas import KEY_QUOTAS, QUOTAS, KeyQuotas, Quotas
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

ACCOUNT_PREFIX = "quota:"
KEY_PREFIX = "key_quota:"


class AccountQuotas:
    """Reads and changes the quotas of accounts. `quotas` and `key_quotas` are the installation's."""

    def __init__(
        self, redis: RedisCommands, *, quotas: Quotas | None = None, key_quotas: KeyQuotas | None = None
    ) -> None:
        self._redis = redis
        self.quotas = quotas or Quotas()
        self.key_quotas = key_quotas or KeyQuotas()

    async def of(self, account_id: str) -> tuple[Quotas, KeyQuotas]:
        """The quotas that hold for the account, and for each of its API keys."""
        fields = [*(ACCOUNT_PREFIX + name for name in QUOTAS), *(KEY_PREFIX + name for name in KEY_QUOTAS)]
        stored = await self._redis.command("HMGET", keyspace.account(account_id), *fields)
        own, of_keys = stored[: len(QUOTAS)], stored[len(QUOTAS) :]
        return self.quotas.merged(_given(QUOTAS, own)), self.key_quotas.merged(_given(KEY_QUOTAS, of_keys))

    async def change(
        self,
        account_id: str,
        *,
        quotas: Mapping[str, float | None],
        key_quotas: Mapping[str, float | None],
    ) -> None:
        """Overrides the installation's quotas for the account; None ends an override."""
        name = keyspace.account(account_id)
        changes = {ACCOUNT_PREFIX + quota: value for quota, value in quotas.items()}
        changes |= {KEY_PREFIX + quota: value for quota, value in key_quotas.items()}
        kept = [part for field, value in changes.items() if value is not None for part in (field, value)]
        ended = [field for field, value in changes.items() if value is None]
        if kept:
            await self._redis.command("HSET", name, *kept)
        if ended:
            await self._redis.command("HDEL", name, *ended)


def _given(names: tuple[str, ...], stored: list[bytes | None]) -> dict[str, float]:
    values = zip(names, stored, strict=True)
    return {name: _number(value) for name, value in values if value is not None}


def _number(stored: bytes) -> float:
    return int(stored) if stored.isdigit() else float(stored)
