"""The webhook channels that one process delivers: found by wakeups, by retry jobs, and by a sweep.

A visit looks up the receiver's name, waits for a place, claims a channel that no live instance holds,
delivers until the queue is empty, lingers for more, and releases the lease. It holds a place only during a
request and its commands to Redis. There is one visit per channel, with one request at a time, which keeps the
order; webhooks with several requests at once have theirs in parallel.py.
"""

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from services.composition import Stores
from services.serving import Readiness
from services.webhook_dispatcher.delivery import Deliveries
from services.webhook_dispatcher.known_webhooks import KnownWebhook, KnownWebhooks
from services.webhook_dispatcher.lanes import Lanes
from services.webhook_dispatcher.notices import NoticePublisher
from services.webhook_dispatcher.outcomes import Outcome
from services.webhook_dispatcher.parallel import Parallel
from services.webhook_dispatcher.sweep import Sweep
from services.webhook_dispatcher.visit import Visit
from shared.model.channels import ANY_DISPATCHER, Lease, instance_of
from shared.model.errors import HeldByAnother, NoLongerOwner, StoreUnavailable
from shared.outbound.client import Outbound
from shared.outbound.names import Resolved
from shared.outbound.places import Asked
from shared.runtime.loops import in_background
from shared.runtime.settings import Settings
from shared.store.commands import words_of
from shared.store.due_webhooks import DueWebhook
from shared.store.inline_entries import parse_wakeups
from shared.store.wakeups import listen_to_wakeups, parse_key_changed, parse_webhook_changed

logger = logging.getLogger(__name__)

# A channel that had something a moment ago is likely to have more: lingering saves a release and a claim.
_LINGER_S = 2.0
_ERROR_PAUSE_S = 1.0
_SHUTDOWN_S = 4.0
_RELEASE_S = 1.0


class Dispatcher:
    """All visits of one process. Its leases are owned by `stores.instance`."""

    def __init__(
        self,
        stores: Stores,
        deliveries: Deliveries,
        outbound: Outbound,
        settings: Settings,
        readiness: Readiness | None = None,
        *,
        notices: NoticePublisher,
    ) -> None:
        readiness = readiness or Readiness(asyncio.Event())
        # Kept: on Python 3.11 it is a system call to ask for it.
        self._loop = asyncio.get_running_loop()
        self._stores = stores
        self._deliveries = deliveries
        self._outbound = outbound
        self._notices = notices
        self._known = KnownWebhooks(stores.webhooks)
        self._heartbeat_s = settings.heartbeat_s
        self._awaited_heartbeat = readiness.awaiting("the heartbeat of the dispatcher")
        self._awaited_wakeups = readiness.awaiting("the subscription of the dispatcher")
        self._repeat_s = settings.sweep_s
        self._cut_short: dict[str, bool] = {}
        self._sweep = Sweep(stores, settings, visit=self._visit_due, waiting_ms=self._waiting_ms)
        requests = settings.webhook_requests
        per_account = settings.webhook_requests_per_account or max(1, requests // 4)
        self._lanes = Lanes(requests, per_account=per_account)
        self._visits: dict[str, Visit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims = itertools.count(1)
        self._stopping = asyncio.Event()
        self._parallel = Parallel(
            deliveries.entries, outbound, self._lanes, deliveries.retries, self._stopping
        )

    def visit(self, channel: str, *, follows_failure: bool = False) -> None:
        """Begins a visit, or wakes the one that runs: it delivers once more before it ends."""
        visit = self._visits.get(channel)
        if visit is not None:
            visit.wake()
        elif not self._stopping.is_set():
            self._visits[channel] = visit = Visit(channel, follows_failure=follows_failure, loop=self._loop)
            visit.task = task = self._loop.create_task(self._run(visit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def retry(self, channel: str) -> None:
        """The backoff of a failed attempt is over."""
        self.visit(channel, follows_failure=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens, sends heartbeats and sweeps while entered; then ends all visits within seconds."""
        try:
            async with in_background(self._listen, self._beat, self._repeat, *self._sweep.loops):
                try:
                    yield
                finally:
                    await self._shutdown()
        finally:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                await asyncio.wait_for(self._stores.heartbeat.stop(), _RELEASE_S)

    async def _shutdown(self) -> None:
        """Begins no request. Requests under way have `_SHUTDOWN_S`; another dispatcher repeats the rest."""
        self._stopping.set()
        for visit in self._visits.values():
            visit.wake()
            if visit.is_idle and visit.task is not None:
                visit.task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_SHUTDOWN_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_RELEASE_S)

    async def _run(self, visit: Visit) -> None:
        channel, again = visit.channel, False
        try:
            again = await self._visit(visit)
        except StoreUnavailable:
            self._cut_short[channel] = visit.follows_failure
            logger.debug("visit.cut-short", extra={"facts": {"channel": channel}})
        except Exception:
            logger.exception("visit.failed", extra={"facts": {"channel": channel}})
            await asyncio.sleep(_ERROR_PAUSE_S)
            again = True
        finally:
            del self._visits[channel]
        if again or visit.is_woken:
            self.visit(channel, follows_failure=visit.follows_failure)

    async def _visit(self, visit: Visit) -> bool:
        """True if the next visit is due at once."""
        webhook = await self._known.get(visit.channel)
        if webhook is None:
            visit.forget_wakeups()
            return False
        outcome = None
        try:
            outcome = await self._deliver_all(visit, webhook)
        except HeldByAnother:
            visit.forget_wakeups()
        except NoLongerOwner:
            if visit.lease is None:
                self._known.forget(visit.channel)
                visit.forget_wakeups()
            outcome = Outcome.RELEASED
        finally:
            if outcome not in (Outcome.RELEASED, Outcome.CHANGED):
                await self._release(visit)
        return outcome is Outcome.CHANGED

    async def _deliver_all(self, visit: Visit, webhook: KnownWebhook) -> Outcome | None:
        """Delivers until nothing may be sent now, and nothing came for a while. The last outcome, if any."""
        outcome = resolved = None
        while not self._stopping.is_set():
            if resolved is None:
                with visit.idle():
                    resolved = await self._outbound.resolve(webhook.url, account=webhook.account)
            elif resolved.addresses:
                # A connection is open: it must not wait for a name server.
                resolved = self._outbound.resolve_again(resolved, account=webhook.account)
            outcome = await self._deliver_once(visit, webhook, resolved)
            if outcome is Outcome.PARALLEL:
                outcome = await self._parallel.run(visit, webhook, resolved, linger_s=_LINGER_S)
            if outcome is Outcome.NO_PLACE:
                # Others may have the channel while it waits.
                await self._release(visit)
            if outcome in (Outcome.IN_ORDER, Outcome.NO_PLACE):
                continue
            if outcome is Outcome.MOVED:
                resolved = None
                continue
            if outcome is Outcome.PACED:
                # Without a place: others may go on meanwhile.
                with visit.idle():
                    await asyncio.sleep(webhook.paced_ms / 1000)
                continue
            if outcome in (None, Outcome.RELEASED, Outcome.CHANGED, Outcome.BACKOFF):
                # Do not linger in a backoff: the dispatcher that runs the retry could not claim the channel.
                break
            visit.follows_failure = False
            # A wakeup since the batch was taken counts, too.
            is_empty = outcome in (Outcome.EMPTIED, Outcome.NOTHING_TO_SEND)
            if is_empty and not await visit.is_woken_within(_LINGER_S):
                break
        return outcome

    async def _deliver_once(self, visit: Visit, webhook: KnownWebhook, resolved: Resolved) -> Outcome | None:
        """Delivers one batch in a place of its lane; None when the process stops before."""
        is_slow = visit.follows_failure or webhook.is_slow
        place = (self._lanes.ask_slow if is_slow else self._lanes.ask_fast)(webhook.account)
        try:
            if place.asked is not None:
                with visit.idle():
                    await self._wait_for(place.asked, visit)
            if self._stopping.is_set():
                return None
            self._lanes.begin(place)
            visit.forget_wakeups()
            if visit.lease is None:
                # After the wait: until then any other dispatcher with a free place may have the channel.
                visit.lease = await self._claim(visit.channel)
            return await self._deliveries.deliver(visit.lease, webhook, resolved)
        finally:
            place.give_back()

    async def _wait_for(self, place: Asked, visit: Visit) -> None:
        visit.waits_since_s = asyncio.get_running_loop().time()
        if visit.lease is not None:
            await asyncio.wait([place], timeout=_LINGER_S)
            if not place.done():
                await self._release(visit)
        await place
        visit.waits_since_s = math.inf

    async def _release(self, visit: Visit) -> None:
        if visit.lease is not None:
            lease, visit.lease = visit.lease, None
            await self._stores.leases.release(lease)

    async def _claim(self, channel: str) -> Lease:
        owner = f"{self._stores.instance}/{next(self._claims)}"
        try:
            return await self._stores.leases.claim_unheld(channel, owner=owner)
        except HeldByAnother as held:
            if instance_of(held.owner) != self._stores.instance:
                raise
            # An earlier visit of this process, whose release failed.
            silent = held.owner
            return await self._stores.leases.claim_unheld(channel, owner=owner, silent=silent)

    async def _listen(self) -> None:
        names = (self._stores.instance, instance_of(ANY_DISPATCHER))
        await listen_to_wakeups(self._stores.redis, *names, listener=self)

    def on_messages(self, messages: Sequence[bytes]) -> None:
        words, _ = parse_wakeups(messages)
        for word in words:
            if (channel := parse_webhook_changed(word)) is not None:
                self._on_changed(channel)
            elif parse_key_changed(word) is None:
                self.visit(word)

    def _on_changed(self, channel: str) -> None:
        if self._known.requests_to(channel):
            self._start(self._end_outdated(channel))
        self.visit(channel)

    async def _end_outdated(self, channel: str) -> None:
        """Ends the requests to the URL of before: what waits must not wait for a receiver that hangs."""
        with contextlib.suppress(StoreUnavailable):
            setup = await self._stores.webhooks.setup(channel)
            for request in self._known.requests_to(channel):
                request.end_unless(setup)

    def on_restored(self) -> None:
        self._awaited_wakeups.has_come()
        self._sweep.restored()

    def on_lost(self) -> None:
        """Visits keep no state that a lost write could make wrong."""

    async def _beat(self) -> None:
        while True:
            await self._try_to_beat()
            await asyncio.sleep(self._heartbeat_s)

    async def _try_to_beat(self) -> None:
        try:
            await self._stores.heartbeat.beat()
        except StoreUnavailable as error:
            self._awaited_heartbeat.failed(words_of(error))
        else:
            self._awaited_heartbeat.has_come()

    def _visit_due(self, due: DueWebhook) -> None:
        if due.has_notices:
            # The dispatcher that was to publish them has died, or could not.
            self._start(self._notices.publish(due.channel))
        if due.is_due and not due.is_held:
            self.visit(due.channel, follows_failure=due.failed_attempts > 0)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _repeat(self) -> None:
        """Begins the visits again that Redis cut short."""
        while True:
            await asyncio.sleep(self._repeat_s)
            cut_short, self._cut_short = self._cut_short, {}
            for channel, follows_failure in cut_short.items():
                self.visit(channel, follows_failure=follows_failure)

    def _waiting_ms(self) -> int:
        since_s = min((visit.waits_since_s for visit in self._visits.values()), default=math.inf)
        return (
            max(0, round((asyncio.get_running_loop().time() - since_s) * 1000)) if since_s < math.inf else 0
        )
