"""Publishes for one process, in one round trip while the routing tables in memory are current.

The versions of the tables are read beside the appends: a change that was answered before a publish began is
noticed before the publish is answered. The publish is then repaired: the tables are read again, the events
are matched again, and what is missing is appended. A channel whose bindings have changed has refused the
append. A repair is a barrier: later publishes of the account wait, so that no channel gets them out of order.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

from shared import clock, telemetry
from shared.model.errors import Invalid, StoreUnavailable
from shared.model.routing_table import RoutingTable
from shared.publish.matching import EVENTS_A_TURN, Matched, devices_of, match, match_in_turns
from shared.publish.quota import check_quota
from shared.publish.request import Posted
from shared.publish.round import PublishStores, Round, Taken
from shared.store.keyspace import EVERY

OnEnd: TypeAlias = Callable[[list[int] | Exception], None]
"""Gets for each event the number of channels and sessions it went to, or the error."""

# Each further round needs another change of the tables meanwhile.
_ROUNDS = 10


class BindingsKeepChanging(StoreUnavailable):
    """A publish met a change in every round."""

    def __init__(self) -> None:
        super().__init__(why="the account's bindings keep changing")


@dataclass(slots=True, eq=False)
class _Account:
    """The publishes of one account that are under way.

    While `repair` runs, later ones are `waiting`; `stale` ones have met a changed table, or none in memory.
    """

    id: str
    open: int = 0
    in_flight: int = 0
    stale: list["_Publish"] = field(default_factory=list)
    waiting: list["_Publish"] = field(default_factory=list)
    repair: asyncio.Task[None] | None = None
    idle: asyncio.Future[None] | None = None


@dataclass(slots=True, eq=False)
class _Publish:
    """`number` is its place in the order of arrival."""

    account: _Account
    posted: Posted
    on_end: OnEnd
    span: telemetry.PublishSpan
    number: int
    now_ms: int
    taken: Taken = field(default_factory=Taken)


class Publisher:
    """Appends each event to the queue of every matching channel."""

    def __init__(self, stores: PublishStores, *, now_ms: Callable[[], int] = clock.now_ms) -> None:
        self._stores = stores
        self._routing = stores.routing
        self._now_ms = now_ms
        self._accounts: dict[str, _Account] = {}
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, posted: Posted) -> list[int]:
        """Appends the events, in order. Returns for each the number of channels and sessions it went to.

        When this returns, Redis holds every notification. Raises Invalid for an unknown addressee; TooLarge
        for too many notifications; StoreUnavailable. After an error some notifications may be appended, so a
        repetition may duplicate them.
        """
        ended: asyncio.Future[list[int] | Exception] = asyncio.get_running_loop().create_future()

        def on_end(result: list[int] | Exception) -> None:
            if not ended.done():
                ended.set_result(result)

        self.begin(posted, on_end)
        result = await ended
        if isinstance(result, Exception):
            raise result
        return result

    def begin(self, posted: Posted, on_end: OnEnd) -> None:
        """The same by callback: no task and no coroutine in the usual case."""
        account = self._accounts.get(posted.account_id)
        if account is None:
            account = self._accounts[posted.account_id] = _Account(posted.account_id)
        account.open += 1
        span = telemetry.PublishSpan(posted.account_id, len(posted.events), traceparent=posted.traceparent)
        self._match(_Publish(account, posted, on_end, span, next(self._numbers), self._now_ms()))

    def _match(self, publish: _Publish) -> None:
        account = publish.account
        if account.repair is not None:
            account.waiting.append(publish)
            return
        table, every = self._routing.cached(account.id), self._routing.cached(EVERY)
        if table is None or every is None:
            self._repair_later(publish)
            return
        events = publish.posted.events
        if len(events) > EVENTS_A_TURN or (table.needs_device_types and devices_of(events, table)):
            self._start(self._match_slowly(publish, table, every))
            return
        try:
            matched = match(publish.posted, table, every, now_ms=publish.now_ms)
            are_few = check_quota(events, matched)
        except Invalid:
            # A table that is behind proves nothing.
            self._repair_later(publish)
        else:
            if are_few:
                self._send(publish, matched)
            else:
                self._start(self._match_slowly(publish, table, every))

    async def _match_slowly(self, publish: _Publish, table: RoutingTable, every: RoutingTable) -> None:
        """Makes sure first that the tables are current: nothing is appended of a publish that is refused."""
        try:
            versions = await self._routing.versions(publish.account.id)
            if versions != (table.version, every.version):
                self._repair_later(publish)
                return
            matched = await self._matched(publish, table, every)
        except Invalid:
            self._repair_later(publish)
        except Exception as error:
            self._end(publish, error)
        else:
            self._send(publish, matched)

    async def _matched(self, publish: _Publish, table: RoutingTable, every: RoutingTable) -> Matched:
        events = publish.posted.events
        types: dict[str, str] = {}
        if devices := devices_of(events, table):
            types = await self._routing.device_types(publish.account.id, devices)
        matched = await match_in_turns(
            publish.posted, table, every, now_ms=publish.now_ms, stored_types=types
        )
        check_quota(events, matched)
        return matched

    def _send(self, publish: _Publish, matched: Matched) -> None:
        account, unconfirmed = publish.account, matched.table.unconfirmed
        if account.repair is not None:
            account.waiting.append(publish)
        elif unconfirmed and not unconfirmed.isdisjoint(matched.channels):
            # A channel may refuse this append and accept the next one: let none overtake it.
            self._repair_later(publish)
        else:
            account.in_flight += 1
            self._round(publish, matched, on_end=lambda sent: self._on_round(publish, sent))

    def _round(self, publish: _Publish, matched: Matched, *, on_end: Callable[[Round], None]) -> None:
        Round(
            self._stores,
            publish.posted,
            matched,
            publish.taken,
            traceparent=publish.span.traceparent,
            now_ms=publish.now_ms,
            on_end=on_end,
        )

    def _on_round(self, publish: _Publish, sent: Round) -> None:
        account = publish.account
        account.in_flight -= 1
        try:
            is_complete = not sent.record() and sent.is_current
        except Exception as error:
            self._end(publish, error)
        else:
            if is_complete:
                self._end(publish, sent.matched)
            else:
                telemetry.repaired.add(1)
                self._repair_later(publish)
        if account.idle is not None and not account.in_flight:
            account.idle.set_result(None)
            account.idle = None

    def _end(self, publish: _Publish, result: Matched | Exception) -> None:
        """Ends the publish with what its events matched at last, or with an error."""
        account = publish.account
        account.open -= 1
        if not account.open and account.repair is None:
            del self._accounts[account.id]
        if isinstance(result, Exception):
            publish.span.end(result)
            _call(publish.on_end, result)
            return
        publish.span.end(None)
        counts = publish.taken.counts(result, len(publish.posted.events))
        telemetry.queued.add(sum(counts))
        telemetry.published.add(len(counts))
        _call(publish.on_end, counts)

    # The repair

    def _repair_later(self, publish: _Publish) -> None:
        account = publish.account
        account.stale.append(publish)
        if account.repair is None:
            account.repair = self._start(self._repair(account))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _repair(self, account: _Account) -> None:
        """Publishes what is stale, in the order of arrival; then lets go on what waits, in that order too."""
        while account.stale:
            if account.in_flight:
                # They may turn out to be stale too, and came before what waits.
                account.idle = asyncio.get_running_loop().create_future()
                await account.idle
            stale, account.stale = sorted(account.stale, key=lambda publish: publish.number), []
            for publish in stale:
                await self._publish_alone(publish)
        account.repair = None
        waiting, account.waiting = account.waiting, []
        for publish in waiting:
            self._match(publish)
        if not account.open:
            self._accounts.pop(account.id, None)

    async def _publish_alone(self, publish: _Publish) -> None:
        result: Matched | Exception
        try:
            result = await self._publish_until_current(publish)
        except Exception as error:
            result = error
        self._end(publish, result)

    async def _publish_until_current(self, publish: _Publish) -> Matched:
        """Reads the tables, matches and appends what is missing, until nothing has changed meanwhile."""
        account_id = publish.account.id
        for _ in range(_ROUNDS):
            table, every = await asyncio.gather(self._routing.table(account_id), self._routing.table(EVERY))
            matched = await self._matched(publish, table, every)
            ended: asyncio.Future[Round] = asyncio.get_running_loop().create_future()
            self._round(publish, matched, on_end=ended.set_result)
            sent = await ended
            refused = sent.record()
            sent.confirm(dict(refused))
            # A channel may be behind the table: a writer may have died between the two.
            behind = [
                channel
                for channel, version in refused
                if await self._routing.confirm_bindings(account_id, channel, seen=version)
            ]
            if not behind and sent.is_current:
                return matched
        raise BindingsKeepChanging


def _call(on_end: OnEnd, result: list[int] | Exception) -> None:
    """Reports an error of the callback to the loop: the account's other publishes must go on."""
    try:
        on_end(result)
    except Exception as error:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "the callback of a publish failed", "exception": error})
