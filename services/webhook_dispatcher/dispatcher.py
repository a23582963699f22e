"""The webhook channels that one process visits: told by wakeups and jobs, and found by a sweep.

A visit claims what nobody live holds, delivers until nothing is left, stays for a little while, and gives the
lease back. One visit per channel, one request at a time in it: order needs no more. A dead receiver costs its
own visits only; those that follow a failure have places of their own, so that they cannot take all of them.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from services.webhook_dispatcher.delivery import Deliveries, Outcome
from shared import telemetry
from shared.model.channels import ANY_DISPATCHER, Kind, Lease, instance_of
from shared.model.errors import HeldByAnother, NoLongerOwner, StoreUnavailable
from shared.runtime.loops import end, forever
from shared.store.due_webhooks import DueWebhooks
from shared.store.leases import Leases
from shared.store.replicas import Heartbeat
from shared.store.wakeups import Subscription, parse_key_changed, subscribe_wakeups

logger = logging.getLogger(__name__)

# A channel that had something a moment ago is likely to have more: staying saves a claim and a release.
_STAYS_S = 2.0
_AGAIN_S = 1.0
_SHUTDOWN_S = 4.0
_LET_GO_S = 1.0
# What a sweep has found is shown until the next is overdue by so many, and so long.
_ROUNDS_SHOWN = 3
_AGES_SHOWN_S = 30.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How often, in seconds."""

    heartbeat_s: float
    sweep_s: float


class _Visit:
    """One channel while it is looked after."""

    def __init__(self, *, follows_failure: bool) -> None:
        self.follows_failure = follows_failure
        self.woken = asyncio.Event()

    async def woken_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.woken.wait(), limit_s)
        return self.woken.is_set()


class Dispatcher:
    """All visits of one process. `instance` names it in leases."""

    def __init__(
        self,
        *,
        redis: Redis,
        leases: Leases,
        deliveries: Deliveries,
        due: DueWebhooks,
        heartbeat: Heartbeat,
        instance: str,
        timing: Timing,
        requests: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._redis = redis
        self._leases = leases
        self._deliveries = deliveries
        self._due = due
        self._heartbeat = heartbeat
        self._instance = instance
        self._timing = timing
        self._now_ms = now_ms
        half = max(1, requests // 2)
        self._places = {False: asyncio.Semaphore(half), True: asyncio.Semaphore(half)}
        self._visits: dict[str, _Visit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims = itertools.count(1)
        self._stopping = asyncio.Event()

    def look_at(self, channel: str, *, follows_failure: bool = False) -> None:
        """Visits the channel soon; a visit that is under way looks again."""
        visit = self._visits.get(channel)
        if visit is not None:
            visit.woken.set()
        elif not self._stopping.is_set():
            self._visits[channel] = visit = _Visit(follows_failure=follows_failure)
            task = asyncio.create_task(self._look_after(channel, visit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def try_again(self, channel: str) -> None:
        """The time of a later try has come."""
        self.look_at(channel, follows_failure=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hears wakeups, beats and sweeps for as long as it is entered; then ends all visits in seconds."""
        tasks = [asyncio.create_task(forever(loop)) for loop in (self._hear, self._beat, self._sweep)]
        try:
            yield
        finally:
            await self._shutdown()
            await end(*tasks)
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                await asyncio.wait_for(self._heartbeat.stop(), _LET_GO_S)

    async def _shutdown(self) -> None:
        """Begins nothing more; requests under way have some seconds, then another makes them again."""
        self._stopping.set()
        for visit in self._visits.values():
            visit.woken.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_SHUTDOWN_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LET_GO_S)

    async def _look_after(self, channel: str, visit: _Visit) -> None:
        again = False
        try:
            again = await self._visit(channel, visit)
        except StoreUnavailable:
            # Whatever we hold or know of it is looked at when Redis is back.
            logger.debug("visit.cut-short", extra={"facts": {"channel": channel}})
        except Exception:
            logger.exception("visit.failed", extra={"facts": {"channel": channel}})
            await asyncio.sleep(_AGAIN_S)
            again = True
        finally:
            del self._visits[channel]
        if again or visit.woken.is_set():
            self.look_at(channel, follows_failure=visit.follows_failure)

    async def _visit(self, channel: str, visit: _Visit) -> bool:
        """Tells whether the channel is to be visited again at once."""
        try:
            lease = await self._claim(channel)
        except (HeldByAnother, NoLongerOwner):
            visit.woken.clear()
            return False
        given_back = False
        try:
            while not self._stopping.is_set():
                visit.woken.clear()
                async with self._places[visit.follows_failure]:
                    if self._stopping.is_set():
                        break
                    outcome = await self._deliveries.deliver(lease)
                if outcome in (Outcome.GIVEN_BACK, Outcome.GIVEN_BACK_FOR_NOW):
                    given_back = True
                    return outcome is Outcome.GIVEN_BACK_FOR_NOW
                if outcome is Outcome.NOT_YET:
                    # Staying would keep out whoever is to make the later try.
                    break
                visit.follows_failure = False
                if outcome is Outcome.NOTHING_TO_SEND and not await visit.woken_within(_STAYS_S):
                    break
        except NoLongerOwner:
            given_back = True
        finally:
            if not given_back:
                await self._release(lease)
        return False

    async def _claim(self, channel: str) -> Lease:
        owner = f"{self._instance}/{next(self._claims)}"
        try:
            return await self._leases.claim_unheld(channel, owner=owner, kind=Kind.WEBHOOK)
        except HeldByAnother as held:
            if instance_of(held.owner) != self._instance:
                raise
            # Of an earlier visit of ours, which could not give it back.
            silent = held.owner
            return await self._leases.claim_unheld(channel, owner=owner, kind=Kind.WEBHOOK, silent=silent)

    async def _release(self, lease: Lease) -> None:
        await self._leases.release(lease, now_ms=self._now_ms())

    async def _hear(self) -> None:
        names = (self._instance, instance_of(ANY_DISPATCHER))
        async with contextlib.aclosing(subscribe_wakeups(self._redis, *names)) as heard:
            async for words in heard:
                if words is Subscription.RESTORED:
                    await self._try_to_beat()
                    with contextlib.suppress(StoreUnavailable):
                        await self._visit_what_is_due()
                elif isinstance(words, list):
                    for word in words:
                        if parse_key_changed(word) is None:
                            self.look_at(word)

    async def _beat(self) -> None:
        while True:
            await self._try_to_beat()
            await asyncio.sleep(self._timing.heartbeat_s)

    async def _try_to_beat(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._heartbeat.beat(now_ms=self._now_ms())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._timing.sweep_s)
            with contextlib.suppress(StoreUnavailable):
                await self._visit_what_is_due()

    async def _visit_what_is_due(self) -> None:
        oldest_ms = began_ms = self._now_ms()
        async for lot in self._due.pages():
            for due in lot:
                oldest_ms = min(oldest_ms, due.since_ms)
                if not due.is_held:
                    self.look_at(due.channel, follows_failure=due.failed_attempts > 0)
        good_for_s = _ROUNDS_SHOWN * self._timing.sweep_s + _AGES_SHOWN_S
        telemetry.record_webhook_lag(oldest_ms, now_ms=began_ms, good_for_s=good_for_s)
