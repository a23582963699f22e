"""Quotas of accounts: the installation's, what an account's record overrides, and the buckets of rates.

A script that judges a quota gets the installation's as an argument and reads the override itself, as
`HGET {account}:account quota:<name>`: so a change counts at once, everywhere.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared import telemetry
from shared.model.errors import QuotaExceeded
from shared.model.quotas import KEY_QUOTAS, QUOTAS, KeyQuotas, Overrides, Quota, Quotas
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas

logger = logging.getLogger(__name__)

ACCOUNT_PREFIX = "quota:"
KEY_PREFIX = "key_quota:"
_LOGGED_EVERY_S = 60.0
_MOST_LOGGED = 10_000
_COUNTED = (Quota.CHANNELS, Quota.BINDINGS)


@dataclass(frozen=True, slots=True)
class Ask:
    """The tokens of one bucket that a gateway needs, and as many as it wants if the bucket has them."""

    needed: float = 0
    wanted: float = 0


@dataclass(frozen=True, slots=True)
class Leased:
    """`given` tokens, of a bucket that has `left` and fills with `rate` a second; None: it has no bound.

    What is left may be a debt. The bucket holds `burst_s` seconds of its rate.
    """

    rate: float | None
    burst_s: float
    given: float
    left: float


@dataclass(frozen=True, slots=True)
class Sockets:
    """The quota of an account's sockets, and how many every other edge holds."""

    quota: int
    others: Mapping[str, int]


class AccountQuotas:
    """Reads and changes the quotas of accounts. `quotas` and `key_quotas` are the installation's."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        quotas: Quotas | None = None,
        key_quotas: KeyQuotas | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._now_s = now_s
        self.quotas = quotas or Quotas()
        self.key_quotas = key_quotas or KeyQuotas()
        self._replicas = Replicas(redis)
        self._logged: dict[tuple[str, Quota], float] = {}

    async def of(self, account_id: str) -> tuple[Quotas, KeyQuotas]:
        """The quotas that hold for the account, and for each of its API keys."""
        own, of_keys = await self.overrides(account_id)
        return self.quotas.merged(own), self.key_quotas.merged(of_keys)

    async def overrides(self, account_id: str) -> tuple[Overrides, Overrides]:
        """Those of them that differ from the installation's."""
        fields = [*(ACCOUNT_PREFIX + name for name in QUOTAS), *(KEY_PREFIX + name for name in KEY_QUOTAS)]
        stored = await self._redis.command("HMGET", keyspace.account(account_id), *fields)
        own, of_keys = stored[: len(QUOTAS)], stored[len(QUOTAS) :]
        return _given(QUOTAS, own), _given(KEY_QUOTAS, of_keys)

    async def change(
        self,
        account_id: str,
        *,
        quotas: Mapping[str, float | None],
        key_quotas: Mapping[str, float | None],
    ) -> None:
        """Overrides the installation's quotas for the account; None ends an override."""
        changes = {ACCOUNT_PREFIX + quota: value for quota, value in quotas.items()}
        changes |= {KEY_PREFIX + quota: value for quota, value in key_quotas.items()}
        await self._write(keyspace.account(account_id), changes)
        # Afterwards: who sees the new version reads the new quotas.
        await self._write(keyspace.routing(keyspace.EVERY), {"quotas": secrets.token_hex(8)})

    async def _write(self, name: str, changes: Mapping[str, Argument | None]) -> None:
        kept = [part for field, value in changes.items() if value is not None for part in (field, value)]
        ended = [field for field, value in changes.items() if value is None]
        await self._redis.script("quota_change", [name], len(kept) // 2, *kept, *ended)

    def lease(self, account_id: str, asks: Sequence[Ask]) -> asyncio.Future[Any]:
        """Asks for the account's events, bytes and copies; the reply is for `leased`."""
        usual = (self.quotas.events_per_s, self.quotas.bytes_per_s, self.quotas.copies_per_s)
        names = [keyspace.account(account_id), keyspace.rates(account_id)]
        groups = _groups(("events", "bytes", "copies"), ACCOUNT_PREFIX, usual, asks)
        return self._redis.script("quota_lease", names, self.quotas.burst_s, *groups)

    def lease_for_key(self, account_id: str, api_key_id: str, asks: Sequence[Ask]) -> asyncio.Future[Any]:
        """The same for an API key's events and bytes."""
        usual = (self.key_quotas.events_per_s, self.key_quotas.bytes_per_s)
        names = [keyspace.account(account_id), keyspace.rates_of_key(account_id, api_key_id)]
        groups = _groups(("events", "bytes"), KEY_PREFIX, usual, asks)
        return self._redis.script("quota_lease", names, self.quotas.burst_s, *groups)

    async def buckets(self, account_id: str) -> list[Leased]:
        """What is left of the account's events, bytes and copies."""
        return leased(await self.lease(account_id, (Ask(), Ask(), Ask())))

    async def counts(self, account_id: str) -> dict[Quota, int]:
        """How many channels (API keys) and bindings the account has."""
        stored = await self._redis.command("HMGET", keyspace.counts(account_id), *_COUNTED)
        return {quota: int(count or 0) for quota, count in zip(_COUNTED, stored, strict=True)}

    async def check(self, account_id: str, quota: Quota, *, more: int = 1) -> None:
        """Raises QuotaExceeded if so many more channels or bindings are too many.

        Those that are added at the same moment pass together.
        """
        usual = getattr(self.quotas, quota)
        stored, most = await asyncio.gather(
            self._redis.command("HGET", keyspace.counts(account_id), quota),
            self._redis.command("HGET", keyspace.account(account_id), ACCOUNT_PREFIX + quota),
        )
        if int(stored or 0) + more > int(usual if most is None else most):
            raise self.exceeded(account_id, quota)

    async def report_sockets(self, account_id: str, instance: str, *, count: int) -> Sockets:
        """Says how many sockets and polls of the account this edge holds."""
        names = [keyspace.account(account_id), keyspace.sockets(account_id)]
        most, *others = await self._redis.script(
            "sockets_report", names, instance, count, self.quotas.sockets
        )
        pairs = zip(others[::2], others[1::2], strict=True)
        return Sockets(int(most), {other.decode(): int(held) for other, held in pairs})

    async def forget_sockets(self, account_id: str, instances: Iterable[str]) -> None:
        """Forgets what edges that no longer live have held."""
        await self._redis.command("HDEL", keyspace.sockets(account_id), *instances)

    async def sockets(self, account_id: str) -> int:
        """How many sockets and polls of the account the live edges hold."""
        stored = await self._redis.command("HGETALL", keyspace.sockets(account_id))
        held = {
            instance.decode(): int(value.partition(b" ")[0])
            for instance, value in zip(stored[::2], stored[1::2], strict=True)
        }
        return sum(held[instance] for instance in await self.living(held))

    async def living(self, instances: Iterable[str]) -> set[str]:
        """Those of the edges that have a heartbeat."""
        names = list(instances)
        states = await asyncio.gather(*map(self._replicas.state, names))
        return {name for name, state in zip(names, states, strict=True) if state.live}

    def exceeded(self, account_id: str, quota: Quota, *, retry_after_s: float | None = None) -> QuotaExceeded:
        """The error to raise. Counts it, and logs it once a minute for each account and quota."""
        telemetry.quota_refused.add(1, {"quota": quota})
        now_s, what = self._now_s(), (account_id, quota)
        logged_s = self._logged.get(what)
        if logged_s is None or now_s - logged_s >= _LOGGED_EVERY_S:
            # In the order of their time: the first is the oldest.
            self._logged.pop(what, None)
            if len(self._logged) >= _MOST_LOGGED:
                del self._logged[next(iter(self._logged))]
            self._logged[what] = now_s
            logger.warning("quota.exceeded", extra={"facts": {"account": account_id, "quota": str(quota)}})
        return QuotaExceeded(quota, retry_after_s=retry_after_s)


def leased(reply: Sequence[Any]) -> list[Leased]:
    """What a lease gave, bucket by bucket."""
    found = []
    for at in range(2, len(reply), 3):
        rate, given, left = reply[at : at + 3]
        found.append(Leased(float(rate) if rate else None, float(reply[0]), int(given), int(left)))
    return found


def limits_keys(reply: Sequence[Any]) -> bool:
    """Whether the account's record has quotas for its API keys."""
    return bool(reply[1])


def _groups(
    buckets: Sequence[str], prefix: str, usual: Sequence[int | None], asks: Sequence[Ask]
) -> list[Argument]:
    return [
        part
        for bucket, rate, ask in zip(buckets, usual, asks, strict=True)
        for part in (
            *(bucket, f"{prefix}{bucket}_per_s", "" if rate is None else rate),
            *(math.ceil(ask.needed), math.ceil(ask.wanted)),
        )
    ]


def _given(names: tuple[str, ...], stored: list[bytes | None]) -> dict[str, float]:
    values = zip(names, stored, strict=True)
    return {name: _number(value) for name, value in values if value is not None}


def _number(stored: bytes) -> float:
    return int(stored) if stored.isdigit() else float(stored)
