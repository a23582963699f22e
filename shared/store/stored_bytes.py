"""How many bytes each account has stored in Redis, and which accounts may store no more for now.

A process adds up what its publishes store, and reports the sums: an account's at most once a second. What is
acknowledged is not subtracted: a sum near the quota is recounted first (`Recount`), and only a fresh recount
refuses anything. So a sum that has drifted, as after a crash, causes a recount, and no wrong refusal.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from shared.model.errors import StoreUnavailable
from shared.model.quotas import Quota
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.quotas import AccountQuotas
from shared.store.recount import Recount

TICK_S = 1.0
# A small sum waits: thousands of quiet accounts shall not cost a command a second each.
_SMALL_BYTES = 64 * 1024
_LONGEST_WAIT_S = 10.0
# A large one does not: it could fill Redis meanwhile.
_LARGE_BYTES = 1024 * 1024
_SOON_S = 0.1
_AT_ONCE = 500
# How long a recount holds: one that found too much, one that found less and has been outgrown, one of an
# account near its quota, and one of an account far below.
OVER_S = 2.0
_OUTGROWN_S = 0.2
_NEAR_S = 60.0
_FAR_S = 24 * 3600.0
_NEAR = 0.8
# How long a process refuses after a recount. While it refuses, it asks for the next one.
_REFUSED_S = 10.0
# Who asks how much is stored gets a recount that is as old, if it ends in time.
_SHOWN_S = 5.0
_SHOWN_WITHIN_S = 2.0
_MOST_RECOUNTS = 1000
# Of one process: an account with many channels keeps the others waiting.
_RECOUNTS_AT_ONCE = 4
# How much longer than a recount the pause behind it is.
_RESTS = 4
_MOST_REMEMBERED = 1000
_MARKED_S = 30 * 60.0
_MARK_MS = 90 * 60 * 1000
_MOST_MARKED = 10_000


class Stored(IntEnum):
    """What is counted: QUEUES are those of channels and of sessions, and streams: only a recount tells them
    apart.

    Receipts and responses (of requests with an Idempotency-Key) end by themselves.
    """

    QUEUES = 0
    DEVICE_TYPES = 1
    RECEIPTS = 2
    RESPONSES = 3


@dataclass(slots=True)
class _Sums:
    """What was not reported yet, by `Stored`; since when."""

    since_s: float
    sizes: list[int] = field(default_factory=lambda: [0] * len(Stored))
    is_urgent: bool = False
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """`stored` is an upper bound of what the account has stored; `found` what the last recount found.

    `age_s` is the time since then; None: there was none within two days.
    """

    stored: int
    quota: int
    age_s: float | None
    found: int


class StoredBytes:
    """The sums of one process."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        quotas: AccountQuotas,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._quotas = quotas
        self._now_s = now_s
        self._recount = Recount(redis)
        self._sums: dict[str, _Sums] = {}
        self._refused_until_s: dict[str, float] = {}
        # Accounts to be recounted, with their quotas: those near it, and the others.
        self._recounts_soon: dict[str, int] = {}
        self._recounts: dict[str, int] = {}
        self._counting = set[str]()
        self._counters = 0
        self._rests_until_s: dict[str, float] = {}
        self._marked_s: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = set[asyncio.Task[Any]]()

    def add(self, account_id: str, stored: Stored, size_bytes: int) -> None:
        """Counts bytes that were stored, or that have gone (negative)."""
        sums = self._sums.get(account_id)
        if sums is None:
            sums = self._new_sums(account_id)
        sums.sizes[stored] += size_bytes
        if size_bytes > _LARGE_BYTES or sums.sizes[stored] > _LARGE_BYTES:
            self._hasten(sums)

    def add_device_types(self, account_id: str, size_bytes: int) -> None:
        self.add(account_id, Stored.DEVICE_TYPES, size_bytes)

    def add_receipts(self, account_id: str, size_bytes: int) -> None:
        """Counts receipts, and notes that the account has some: its deletion looks for them then."""
        self.add(account_id, Stored.RECEIPTS, size_bytes)
        now_s = self._now_s()
        if now_s - self._marked_s.get(account_id, -_MARKED_S) >= _MARKED_S:
            if len(self._marked_s) >= _MOST_MARKED:
                self._marked_s.clear()
            self._marked_s[account_id] = now_s
            self._redis.command("SET", keyspace.has_receipts(account_id), 1, "PX", _MARK_MS)

    def check(self, account_id: str) -> None:
        """Raises QuotaExceeded while the account has more stored than its quota."""
        if not self._refused_until_s or not self.is_refused(account_id):
            return
        if account_id not in self._sums:
            # Asks for another recount, once a second: the account may have room by then.
            self._new_sums(account_id).is_asked = True
        raise self._quotas.exceeded(account_id, Quota.STORED_BYTES, retry_after_s=OVER_S)

    def is_refused(self, account_id: str) -> bool:
        """Whether the account had more stored than its quota, some seconds ago."""
        until_s = self._refused_until_s.get(account_id)
        if until_s is None:
            return False
        if until_s <= self._now_s():
            del self._refused_until_s[account_id]
            return False
        return True

    async def used(self, account_id: str) -> int:
        """The bytes that the account has stored, as they were some seconds ago.

        An upper bound if counting takes long, or another process counts. Raises StoreUnavailable.
        """
        await self.report([account_id])
        usage = await self._usage(account_id)
        if usage.age_s is not None and usage.age_s < _SHOWN_S:
            return usage.stored
        counting = asyncio.create_task(self._recount.run(account_id))
        self._tasks.add(counting)
        counting.add_done_callback(self._tasks.discard)
        await asyncio.wait([counting], timeout=_SHOWN_WITHIN_S)
        found = counting.result() if counting.done() else None
        return usage.stored if found is None else found

    async def report(self, account_ids: Sequence[str] | None = None) -> None:
        """Reports the sums of these accounts, or of all. Raises StoreUnavailable; the sums are kept then."""
        taken = {
            account_id: self._sums.pop(account_id)
            for account_id in (list(self._sums) if account_ids is None else account_ids)
            if account_id in self._sums
        }
        reports = (self._usage(account_id, sums.sizes) for account_id, sums in taken.items())
        failure: BaseException | None = None
        for (account_id, sums), usage in zip(
            taken.items(), await asyncio.gather(*reports, return_exceptions=True), strict=True
        ):
            if isinstance(usage, StoreUnavailable):
                failure = usage
                self._put_back(account_id, sums)
            elif isinstance(usage, BaseException):
                failure = usage
            else:
                self._judge(account_id, usage)
        if failure is not None:
            raise failure

    # Reporting

    def _new_sums(self, account_id: str) -> _Sums:
        sums = self._sums[account_id] = _Sums(self._now_s())
        self._schedule(TICK_S)
        return sums

    def _hasten(self, sums: _Sums) -> None:
        if not sums.is_urgent:
            sums.is_urgent = True
            self._schedule(_SOON_S)

    def _schedule(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_s = self._now_s()
        due = [account_id for account_id, sums in self._sums.items() if _is_due(sums, now_s)][:_AT_ONCE]
        for until_s in (self._refused_until_s, self._rests_until_s):
            if len(until_s) > _MOST_REMEMBERED:
                for account_id in [each for each in until_s if until_s[each] <= now_s]:
                    del until_s[account_id]
        if due:
            self._start(self._report_quietly(due))
        if self._sums:
            self._schedule(TICK_S)

    async def _report_quietly(self, account_ids: Sequence[str]) -> None:
        # The next tick reports them again.
        with contextlib.suppress(StoreUnavailable):
            await self.report(account_ids)

    def _put_back(self, account_id: str, sums: _Sums) -> None:
        newer = self._sums.get(account_id) or self._new_sums(account_id)
        newer.sizes = [a + b for a, b in zip(newer.sizes, sums.sizes, strict=True)]

    async def _usage(self, account_id: str, sizes: Sequence[int] = (0,) * len(Stored)) -> Usage:
        """Adds these sizes. Raises StoreUnavailable."""
        names = [keyspace.account(account_id), keyspace.usage(account_id)]
        usual = self._quotas.quotas.stored_bytes
        stored, quota, age_ms, found = await self._redis.script("usage_report", names, usual, *sizes)
        return Usage(int(stored), int(quota), None if age_ms < 0 else age_ms / 1000, int(found))

    # Recounts

    def _judge(self, account_id: str, usage: Usage) -> None:
        if usage.age_s is not None and usage.age_s < _REFUSED_S:
            # Another process may have counted.
            self._refuse_or_not(account_id, usage.found, usage.quota, age_s=usage.age_s)
        if usage.age_s is not None and usage.age_s < _good_for_s(usage):
            return
        if account_id in self._counting or self._rests_until_s.get(account_id, 0.0) > self._now_s():
            return
        is_near = usage.stored >= _NEAR * usage.quota
        if is_near:
            self._recounts_soon[account_id] = usage.quota
        elif len(self._recounts) < _MOST_RECOUNTS:
            self._recounts[account_id] = usage.quota
        if self._counters < _RECOUNTS_AT_ONCE:
            self._counters += 1
            self._start(self._count())

    async def _count(self) -> None:
        """Recounts accounts one after the other, those near their quota first."""
        try:
            while waiting := self._recounts_soon or self._recounts:
                account_id = next(iter(waiting))
                quota = waiting.pop(account_id)
                if account_id not in self._counting:
                    with contextlib.suppress(StoreUnavailable):
                        await self._count_one(account_id, quota)
        finally:
            self._counters -= 1

    async def _count_one(self, account_id: str, quota: int) -> None:
        """Raises StoreUnavailable."""
        self._counting.add(account_id)
        began_s = self._now_s()
        try:
            found = await self._recount.run(account_id)
        finally:
            self._counting.discard(account_id)
        took_s = self._now_s() - began_s
        # A long one is not repeated at once, and refuses until the next one can have ended.
        self._rests_until_s[account_id] = self._now_s() + _RESTS * took_s
        if found is not None:
            self._refuse_or_not(account_id, found, quota, age_s=-2 * _RESTS * took_s)

    def _refuse_or_not(self, account_id: str, found: int, quota: int, *, age_s: float) -> None:
        if found >= quota:
            self._refused_until_s[account_id] = self._now_s() + _REFUSED_S - age_s
        else:
            self._refused_until_s.pop(account_id, None)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _good_for_s(usage: Usage) -> float:
    if usage.found >= usage.quota:
        return OVER_S
    if usage.stored >= usage.quota:
        return _OUTGROWN_S
    return _NEAR_S if usage.stored >= _NEAR * usage.quota else _FAR_S


def _is_due(sums: _Sums, now_s: float) -> bool:
    age_s, is_large = now_s - sums.since_s, max(map(abs, sums.sizes)) >= _SMALL_BYTES
    return is_large or sums.is_urgent or sums.is_asked or age_s >= _LONGEST_WAIT_S
