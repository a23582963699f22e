"""The rates of accounts and API keys at one gateway: who may publish now, and who gets a 429.

A bucket in Redis holds the tokens of a rate for all gateways. Each gateway keeps a reserve of them, as many
as the rate fills in `BLOCK_S`. A publish takes from the reserve; when half of it is gone, the gateway asks
Redis for more beside its other calls. So nothing waits for Redis but the first publish of an account, one
that is larger than the reserve, and those that come faster than a reserve in a round trip.

A reserve also fills by itself, by `TRICKLE` of the rate: an account that uses less costs Redis nothing. All
gateways together exceed a rate by no more than a reserve and the trickle each.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from shared.model.quotas import Quota
from shared.store.quotas import AccountQuotas, Ask, Leased, leased, limits_keys

BLOCK_S = 0.1
TRICKLE = 0.005
# An empty bucket in Redis is not asked again before.
PACE_S = 0.1
# Of accounts, and of API keys with quotas of their own; about 1 KB each. Who is forgotten asks Redis again.
_MOST_METERS = 10_000

OnAdmitted: TypeAlias = Callable[[Exception | None], None]
"""Gets None, or why the publish is refused."""
_Wants: TypeAlias = Sequence[tuple["_Bucket", float]]
_Waiting: TypeAlias = tuple[_Wants, OnAdmitted]


class _Bucket:
    """The reserve of one rate. Without a bound its `level` is infinite."""

    __slots__ = (
        *("closed_until_s", "empty_s", "filled_s", "half_full", "is_known", "level", "low", "meter"),
        *("quota", "rate"),
    )

    def __init__(self, meter: "_Meter", quota: Quota, usual_rate: int | None) -> None:
        self.meter = meter
        self.quota = quota
        self.is_known = False
        self.rate = float(usual_rate or 0)
        self.level = 0.0
        # Below it the gateway asks for more.
        self.low = math.inf
        self.filled_s = 0.0
        # Redis is not asked until then.
        self.closed_until_s = -math.inf
        # When the bucket in Redis was empty, or will have paid its debt; it gives anything when half full.
        self.empty_s = 0.0
        self.half_full = math.inf

    @property
    def size(self) -> float:
        return max(1.0, self.rate * BLOCK_S)

    def fill(self, now_s: float) -> None:
        """Adds what has trickled in."""
        if self.is_known and self.level < self.size:
            self.level = min(self.size, self.level + (now_s - self.filled_s) * self.rate * TRICKLE)
        self.filled_s = now_s

    def ask(self, needed: float) -> Ask:
        """For what is needed beyond the level, and for a full reserve."""
        if self.rate == math.inf:
            return Ask()
        # Redis gives whole tokens: a fraction less than what is needed would be a refusal.
        missing = math.ceil(max(0.0, needed - self.level)) if needed else 0
        return Ask(missing, max(missing, math.ceil(self.size - self.level), 0))

    def on_reply(self, ask: Ask, got: Leased, *, now_s: float) -> None:
        self.is_known = True
        if got.rate is None:
            self.rate = self.level = math.inf
            self.low = -math.inf
            return
        if self.rate == math.inf:
            self.level = 0.0
        is_lower, self.rate = got.rate < self.rate, got.rate
        if is_lower:
            self.level = min(self.level, self.size)
        # It may exceed the size: a publish that needs more waits for it, beside a reserve that is under way.
        self.level += got.given
        self.low = self.size / 2
        if got.left < 1 or got.given < ask.needed:
            self.closed_until_s = now_s + PACE_S
            self.empty_s = now_s - got.left / got.rate
            self.half_full = got.rate * got.burst_s / 2

    def retry_after_s(self, amount: float, *, now_s: float) -> float:
        """When Redis will have the tokens that are missing, if it gives others none."""
        filling_s = min(amount - self.level, self.half_full) / self.rate
        return max(self.closed_until_s, self.empty_s + filling_s) - now_s


class _Meter:
    """The rates of an account, or of an API key; `lease` asks Redis for tokens of all of them."""

    __slots__ = ("buckets", "is_asking", "lease", "version")

    def __init__(
        self,
        quotas: Sequence[tuple[Quota, int | None]],
        lease: Callable[[Sequence[Ask]], asyncio.Future[Any]],
    ) -> None:
        self.buckets = tuple(_Bucket(self, quota, usual) for quota, usual in quotas)
        self.lease = lease
        self.is_asking = False
        # Of all quotas, when these were read.
        self.version: bytes | None = None


class _Account:
    """An account's meter, and who waits for tokens: publishes that arrived, and those that were matched.

    They go on in the order in which they came.
    """

    __slots__ = ("bytes", "copies", "events", "id", "lanes", "limits_keys", "meter")

    def __init__(self, id: str, meter: _Meter, *, limits_keys: bool) -> None:
        self.id = id
        self.meter = meter
        self.events, self.bytes, self.copies = meter.buckets
        self.limits_keys = limits_keys
        self.lanes: tuple[list[_Waiting], list[_Waiting]] = ([], [])


_ARRIVED, _MATCHED = 0, 1


class Rates:
    """Admits publishes, account by account."""

    def __init__(self, quotas: AccountQuotas, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._now_s = now_s
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._keys: OrderedDict[str, _Meter] = OrderedDict()
        self._version: bytes | None = None
        of_keys = quotas.key_quotas
        self._limits_all_keys = of_keys.events_per_s is not None or of_keys.bytes_per_s is not None

    def on_version(self, version: bytes) -> None:
        """Every publish reads the version of all quotas: after a change each meter asks again."""
        if version != self._version:
            self._version = version

    def admit(
        self, account_id: str, api_key_id: str, *, events: int, size_bytes: int, on_admitted: OnAdmitted
    ) -> bool:
        """Takes tokens for a publish that has arrived. True: it may go on.

        False: `on_admitted` says so later, or gets QuotaExceeded or StoreUnavailable. Raises QuotaExceeded.
        Without an `api_key_id` only the account's quotas count.
        """
        account = self._accounts.get(account_id)
        if account is None:
            account = self._new_account(account_id)
        meter, of_events, of_bytes = account.meter, account.events, account.bytes
        if (
            of_events.level - events >= of_events.low
            and of_bytes.level - size_bytes >= of_bytes.low
            and meter.version is self._version
            and not (account.limits_keys and api_key_id)
            and not account.lanes[_ARRIVED]
        ):
            of_events.level -= events
            of_bytes.level -= size_bytes
            return True
        wants: _Wants = ((of_events, events), (of_bytes, size_bytes))
        if account.limits_keys and api_key_id:
            key = self._key(account_id, api_key_id)
            wants = (*wants, (key.buckets[0], events), (key.buckets[1], size_bytes))
        return self._admit(account, _ARRIVED, wants, on_admitted)

    def admit_copies(self, account_id: str, copies: int, on_admitted: OnAdmitted) -> bool:
        """The same for the notifications that a publish makes, once it is matched."""
        account = self._accounts.get(account_id)
        if account is None:
            account = self._new_account(account_id)
        bucket = account.copies
        if bucket.level - copies >= bucket.low and not account.lanes[_MATCHED]:
            bucket.level -= copies
            return True
        return self._admit(account, _MATCHED, ((bucket, copies),), on_admitted)

    def charge_copies(self, account_id: str, copies: int) -> None:
        """Takes tokens for notifications that can no longer be refused: the next ones wait for them."""
        account = self._accounts.get(account_id)
        if account is not None:
            account.copies.level -= copies

    async def spend(
        self, account_id: str, api_key_id: str, *, events: int, size_bytes: int, copies: int
    ) -> None:
        """Waits for all tokens of something to publish. Raises QuotaExceeded, StoreUnavailable."""
        await _admitted(
            lambda done: self.admit(
                account_id, api_key_id, events=events, size_bytes=size_bytes, on_admitted=done
            )
        )
        await self.spend_copies(account_id, copies)

    async def spend_copies(self, account_id: str, copies: int) -> None:
        """`admit_copies` for a coroutine. Raises QuotaExceeded, StoreUnavailable."""
        await _admitted(lambda done: self.admit_copies(account_id, copies, done))

    # The slow way

    def _admit(self, account: _Account, lane: int, wants: _Wants, on_admitted: OnAdmitted) -> bool:
        waiting = account.lanes[lane]
        if not waiting and self._take(account, wants):
            return True
        if waiting:
            # Their turn comes later, but what they need can be asked for at once.
            for meter in dict.fromkeys(bucket.meter for bucket, _ in wants if not bucket.is_known):
                self._ask(account, meter, wants)
        waiting.append((wants, on_admitted))
        return False

    def _take(self, account: _Account, wants: _Wants) -> bool:
        """Takes all tokens, or none: False when Redis was asked for more. Raises QuotaExceeded."""
        now_s = self._now_s()
        for bucket, _ in wants:
            bucket.fill(now_s)
        missing = list[_Bucket]()
        for bucket, amount in wants:
            if bucket.is_known and bucket.level >= amount:
                continue
            missing.append(bucket)
            if now_s < bucket.closed_until_s:
                retry_after_s = bucket.retry_after_s(amount, now_s=now_s)
                raise self._quotas.exceeded(account.id, bucket.quota, retry_after_s=retry_after_s)
        if missing:
            for meter in dict.fromkeys(bucket.meter for bucket in missing):
                self._ask(account, meter, wants)
            return False
        for bucket, amount in wants:
            bucket.level -= amount
        for meter in dict.fromkeys(bucket.meter for bucket, _ in wants):
            is_low = any(each.level < each.low and now_s >= each.closed_until_s for each in meter.buckets)
            if is_low or meter.version is not self._version:
                self._ask(account, meter, ())
        return True

    def _ask(self, account: _Account, meter: _Meter, wants: _Wants) -> None:
        """Asks Redis for what is wanted of this meter, and for full reserves."""
        if meter.is_asking:
            return
        meter.is_asking = True
        amounts = {id(bucket): amount for bucket, amount in wants}
        asks = [bucket.ask(amounts.get(id(bucket), 0)) for bucket in meter.buckets]
        reply = meter.lease(asks)
        reply.add_done_callback(partial(self._on_reply, account, meter, asks, self._version))

    def _on_reply(
        self,
        account: _Account,
        meter: _Meter,
        asks: Sequence[Ask],
        version: bytes | None,
        reply: asyncio.Future[Any],
    ) -> None:
        meter.is_asking = False
        if reply.cancelled():
            # The event loop ends.
            return
        error: Exception | None = None
        try:
            now_s, given = self._now_s(), reply.result()
            for bucket, ask, got in zip(meter.buckets, asks, leased(given), strict=True):
                bucket.on_reply(ask, got, now_s=now_s)
            meter.version = version
            account.limits_keys = self._limits_all_keys or limits_keys(given)
        except Exception as failed:
            # Whatever it is: a publish that never ends would keep its client waiting.
            error = failed
        # The account may have been forgotten meanwhile, and met again: others wait there.
        for each in {account, self._accounts.get(account.id, account)}:
            for waiting in each.lanes:
                self._let_in(each, waiting, error)

    def _let_in(self, account: _Account, waiting: list[_Waiting], error: Exception | None) -> None:
        """Ends the wait of those whose tokens have come, in order, or of all with the error."""
        ended = 0
        try:
            # It may grow meanwhile.
            while ended < len(waiting):
                wants, on_admitted = waiting[ended]
                refusal = error
                if refusal is None:
                    try:
                        if not self._take(account, wants):
                            return
                    except Exception as quota_exceeded:
                        refusal = quota_exceeded
                ended += 1
                on_admitted(refusal)
        finally:
            del waiting[:ended]

    def _new_account(self, account_id: str) -> _Account:
        usual = self._quotas.quotas
        rates = (
            (Quota.EVENTS_PER_S, usual.events_per_s),
            (Quota.BYTES_PER_S, usual.bytes_per_s),
            (Quota.COPIES_PER_S, usual.copies_per_s),
        )
        meter = _Meter(rates, partial(self._quotas.lease, account_id))
        account = _Account(account_id, meter, limits_keys=self._limits_all_keys)
        self._accounts[account_id] = account
        if len(self._accounts) > _MOST_METERS:
            self._accounts.popitem(last=False)
        return account

    def _key(self, account_id: str, api_key_id: str) -> _Meter:
        meter = self._keys.get(api_key_id)
        if meter is not None:
            return meter
        usual = self._quotas.key_quotas
        rates = (
            (Quota.KEY_EVENTS_PER_S, usual.events_per_s),
            (Quota.KEY_BYTES_PER_S, usual.bytes_per_s),
        )
        meter = _Meter(rates, partial(self._quotas.lease_for_key, account_id, api_key_id))
        self._keys[api_key_id] = meter
        if len(self._keys) > _MOST_METERS:
            self._keys.popitem(last=False)
        return meter


async def _admitted(admit: Callable[[OnAdmitted], bool]) -> None:
    admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None) -> None:
        if admitted.done():
            return
        if error is None:
            admitted.set_result(None)
        else:
            admitted.set_exception(error)

    if not admit(done):
        await admitted
