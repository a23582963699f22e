"""Several requests at once for one webhook: each has one event, a place of its own, and its own retries.

One task takes what is due and begins the requests; each of these ends by itself. The lease is kept for as
long as one is under way. What was taken and has no result is due again for the next run, here or elsewhere.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial

from services.webhook_dispatcher.entry_delivery import EntryDeliveries
from services.webhook_dispatcher.known_webhooks import KnownWebhook
from services.webhook_dispatcher.lanes import Lanes, Place
from services.webhook_dispatcher.outcomes import Outcome
from services.webhook_dispatcher.visit import Visit
from shared.clock import now_ms
from shared.jobs import RetryJobs
from shared.model.channels import Lease
from shared.model.errors import StoreUnavailable
from shared.outbound.client import Outbound
from shared.outbound.names import Resolved
from shared.runtime.loops import end
from shared.store.batches import NoBatch, Paced, TakenBatch
from shared.store.parallel_batches import Waiting

# What is due by the clock of Redis is not due yet by a clock that is a little ahead.
_MARGIN_S = 0.05


@dataclass
class _Run:
    """The requests under way, and why no more begin: an outcome, or what one of them raised."""

    visit: Visit
    lease: Lease
    webhook: KnownWebhook
    linger_s: float
    most: int = 1
    asked_for: int = 1
    is_fresh: bool = True
    next_ms: int | None = None
    requests: dict[asyncio.Task[None], bool] = field(default_factory=dict)
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return self.outcome is not None or self.error is not None

    @property
    def room(self) -> int:
        return max(0, self.most - len(self.requests))

    @property
    def retries_room(self) -> int:
        """Half of the requests at most: many that fail slowly must not keep what is new from its turn."""
        return max(1, self.most // 2) - sum(self.requests.values())


def _ended(run: _Run, place: Place, request: asyncio.Task[None]) -> None:
    """Also of a request that was cancelled before it began."""
    del run.requests[request]
    place.give_back()
    if not request.cancelled() and (error := request.exception()) is not None:
        run.error = error
    run.visit.wake()


class Parallel:
    """Delivers to webhooks with several requests at once, for the owners of their leases."""

    def __init__(
        self,
        entries: EntryDeliveries,
        outbound: Outbound,
        lanes: Lanes,
        retries: RetryJobs,
        stopping: asyncio.Event,
    ) -> None:
        self._entries = entries
        self._outbound = outbound
        self._lanes = lanes
        self._retries = retries
        self._stopping = stopping

    async def run(
        self, visit: Visit, webhook: KnownWebhook, resolved: Resolved, *, linger_s: float
    ) -> Outcome | None:
        """Delivers until nothing may be sent now, and nothing came for a while; None when the process stops.

        Schedules the next retry. No request is under way before and after. Raises NoLongerOwner,
        StoreUnavailable.
        """
        assert visit.lease is not None, "the caller has claimed it"
        run = _Run(visit, visit.lease, webhook, linger_s)
        outcome = None
        try:
            try:
                outcome = await self._begin_requests(run, resolved)
            except StoreUnavailable as error:
                # What is under way may end well.
                run.error = error
            if run.requests:
                await asyncio.wait(run.requests)
        finally:
            await end(*run.requests)
        if run.error is not None:
            raise run.error
        if run.next_ms is not None:
            await self._retries.schedule(visit.channel, failed_attempts=1, at_ms=run.next_ms)
        return run.outcome or outcome

    async def _begin_requests(self, run: _Run, resolved: Resolved) -> Outcome | None:
        """Begins requests until there is a reason to stop."""
        while not self._stopping.is_set() and not run.is_over:
            if not run.room:
                await run.visit.is_woken_within(None)
                run.visit.forget_wakeups()
                continue
            if resolved.addresses:
                resolved = self._outbound.resolve_again(resolved, account=run.webhook.account)
            places = await self._places(run)
            try:
                if not places:
                    return Outcome.NO_PLACE
                if self._stopping.is_set() or run.is_over:
                    break
                outcome = await self._begin_some(run, places, resolved)
            finally:
                for place in places:
                    place.give_back()
            if outcome is not None:
                return outcome
        return run.outcome

    async def _places(self, run: _Run) -> list[Place]:
        """As many as the next take may use, if so many are free, and one at least.

        None when none is free in time.
        """
        is_slow = run.webhook.is_slow or run.visit.follows_failure
        ask = self._lanes.ask_slow if is_slow else self._lanes.ask_fast
        places = [ask(run.webhook.account)]
        try:
            if not await self._is_given(run, places[0]):
                places.pop().give_back()
                return []
            while len(places) < min(run.asked_for, run.room):
                place = ask(run.webhook.account)
                if place.asked is not None:
                    place.give_back()
                    break
                places.append(place)
        except BaseException:
            for place in places:
                place.give_back()
            raise
        return places

    async def _is_given(self, run: _Run, place: Place) -> bool:
        if place.asked is None:
            return True
        if run.requests:
            # One of them gives its place back, at the latest when it times out.
            await place.asked
            return True
        with run.visit.idle():
            await asyncio.wait([place.asked], timeout=run.linger_s)
        return place.asked.done()

    async def _begin_some(self, run: _Run, places: list[Place], resolved: Resolved) -> Outcome | None:
        """Takes what is due and begins its requests, each with one of the places; or waits for a while."""
        run.visit.forget_wakeups()
        taken = await self._entries.take(
            run.lease, count=len(places), retries=max(0, run.retries_room), is_fresh=run.is_fresh
        )
        run.is_fresh, run.next_ms = False, None
        if isinstance(taken, list):
            return self._begin(run, taken, places, resolved)
        run.asked_for = 1
        # Others may have them meanwhile.
        while places:
            places.pop().give_back()
        match taken:
            case Paced():
                await run.visit.is_woken_within(taken.wait_ms / 1000)
                return None
            case Waiting():
                run.next_ms = taken.next_ms
            case NoBatch.IN_ORDER:
                return await self._leave(run)
        return await self._wait(run)

    def _begin(
        self, run: _Run, taken: list[TakenBatch], places: list[Place], resolved: Resolved
    ) -> Outcome | None:
        first = taken[0]
        if first.callback.url != run.webhook.url:
            run.webhook.url = first.callback.url
            return Outcome.MOVED
        assert first.policy is not None, "a native webhook has a policy"
        run.most, run.asked_for = first.policy.max_in_flight, 2 * len(taken)
        for batch in taken:
            place = places.pop()
            self._lanes.begin(place)
            request = asyncio.create_task(self._request(run, batch, resolved))
            run.requests[request] = batch.is_retry
            request.add_done_callback(partial(_ended, run, place))
        return None

    async def _request(self, run: _Run, batch: TakenBatch, resolved: Resolved) -> None:
        outcome = await self._entries.deliver(run.lease, batch, run.webhook, resolved)
        if outcome in (Outcome.MOVED, Outcome.RELEASED):
            run.outcome = outcome
        elif outcome is Outcome.ACCEPTED:
            run.visit.follows_failure = False

    async def _leave(self, run: _Run) -> Outcome:
        """Forgets what was taken once nothing is under way: the queue goes on in order."""
        if run.requests:
            await asyncio.wait(run.requests)
        await self._entries.take(run.lease, count=1, retries=0, is_fresh=True)
        return Outcome.IN_ORDER

    async def _wait(self, run: _Run) -> Outcome | None:
        """Until something may be due; BACKOFF when there was nothing for a while and nothing is under way."""
        limit_s = None if run.requests else run.linger_s
        is_due_first = False
        if run.next_ms is not None:
            due_s = max(0, run.next_ms - now_ms()) / 1000 + _MARGIN_S
            is_due_first = limit_s is None or due_s < limit_s
            limit_s = due_s if is_due_first else limit_s
        if await run.visit.is_woken_within(limit_s) or is_due_first or run.requests:
            return None
        return Outcome.BACKOFF
