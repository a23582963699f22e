"""Finds webhooks whose wakeup or retry was lost, or whose dispatcher died.

What may have been missed decides the pace. After a lost subscription, or when an instance has died, the sweep
checks every webhook soon. Otherwise one dispatcher at a time walks through all of them, slowly.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable

from services.composition import Stores
from shared import telemetry
from shared.clock import now_ms
from shared.model.backoff import LONGEST_S
from shared.model.errors import StoreUnavailable
from shared.runtime.settings import Settings
from shared.store.due_webhooks import PAGE_SIZE, DueWebhook

# Webhooks checked in a second, one command each: by the walk that goes on for ever, and after an outage.
_SLOW_PER_S = 40
_QUICK_PER_S = 2000
# How long another dispatcher waits before it goes on with the walk of one that died.
_WALK_TTL_S = 10.0
# The lag shown is the longest of so many intervals: a scrape must not depend on the page before it.
_LAGS_SHOWN = 3
# A retry job that Redis lost is missed once its time has come, after the walk that follows the outage.
_LAST_RETRY_S = LONGEST_S + 10.0


class Sweep:
    """The sweep of one dispatcher. `visit` is called with each webhook that is due and has no live owner, and
    with each that has notices.

    `waiting_ms` returns for how long the visits that wait for a place have waited: their delivery is late.
    """

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        *,
        visit: Callable[[DueWebhook], None],
        waiting_ms: Callable[[], int],
    ) -> None:
        self._stores = stores
        self._every_s = settings.sweep_s
        self._ttl_s = settings.heartbeat_ttl_s
        self._visit = visit
        self._waiting_ms = waiting_ms
        self._hurry = asyncio.Event()
        # Each instance's last heartbeat, and when it was first seen, by the monotonic clock.
        self._heartbeats: dict[bytes, tuple[bytes, float]] = {}
        self._lags_ms: deque[tuple[float, int]] = deque()
        self.loops = (self._walk, self._walk_quickly, self._watch)

    def restored(self) -> None:
        """Wakeups were lost, perhaps with retry jobs and claims that Redis had not written to disk."""
        self._hurry.set()
        asyncio.get_running_loop().call_later(_LAST_RETRY_S, self._hurry.set)

    async def _walk(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            with contextlib.suppress(StoreUnavailable):
                if await self._stores.due_webhooks.begin_walk(ttl_ms=round(_WALK_TTL_S * 1000)):
                    async for page in self._stores.due_webhooks.pages(pause_s=PAGE_SIZE / _SLOW_PER_S):
                        self._visit_all(page)
                        if not await self._stores.due_webhooks.go_on(ttl_ms=round(_WALK_TTL_S * 1000)):
                            break
                    # Just less than the interval: this dispatcher may make the next walk too.
                    await self._stores.due_webhooks.go_on(ttl_ms=round(self._every_s * 900) or 1)
            self._record_lag(0)

    async def _walk_quickly(self) -> None:
        while True:
            await self._hurry.wait()
            self._hurry.clear()
            try:
                # Without a heartbeat the others would take our claims for those of a dead instance.
                await self._stores.heartbeat.beat()
                async for page in self._stores.due_webhooks.pages(pause_s=PAGE_SIZE / _QUICK_PER_S):
                    self._visit_all(page)
            except StoreUnavailable:
                self._hurry.set()
                await asyncio.sleep(self._every_s)
            except Exception:
                self._hurry.set()
                raise

    async def _watch(self) -> None:
        """Hurries when an instance has died. Its webhooks have an owner: no wakeup comes to another one."""
        while True:
            await asyncio.sleep(self._every_s)
            with contextlib.suppress(StoreUnavailable):
                if self._has_died(await self._stores.replicas.last_seen()):
                    self._hurry.set()

    def _has_died(self, seen: dict[bytes, bytes]) -> bool:
        """Has a heartbeat stopped for its TTL, since the last call? Only our own clock measures it."""
        now_s, before, has_died = time.monotonic(), self._heartbeats, False
        self._heartbeats = {}
        for instance, beat in seen.items():
            last, since_s = before.get(instance, (b"", 0.0))
            if last != beat:
                since_s = now_s
            elif now_s - since_s > self._ttl_s:
                has_died = True
                # Once.
                since_s = float("inf")
            self._heartbeats[instance] = beat, since_s
        return has_died

    def _visit_all(self, page: Iterable[DueWebhook]) -> None:
        now, lag_ms = now_ms(), 0
        for due in page:
            if due.is_due:
                lag_ms = max(lag_ms, now - due.since_ms)
            if not due.is_held or due.has_notices:
                self._visit(due)
        self._record_lag(lag_ms)

    def _record_lag(self, lag_ms: int) -> None:
        now_s = time.monotonic()
        self._lags_ms.append((now_s, lag_ms))
        while self._lags_ms[0][0] < now_s - _LAGS_SHOWN * self._every_s:
            self._lags_ms.popleft()
        longest_ms = max(self._waiting_ms(), *(lag for _, lag in self._lags_ms))
        now = now_ms()
        telemetry.record_webhook_lag(now - longest_ms, now_ms=now, every_s=self._every_s)
