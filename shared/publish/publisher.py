"""Publishes for one process, in one round trip while the routing tables in memory are current.

The versions of the tables are read beside the appends: a change that was answered before a publish began is
noticed before the publish is answered, and the publish is repaired. A channel whose bindings have changed has
refused the append.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count

from shared import clock, telemetry
from shared.model.errors import Invalid
from shared.model.idempotency import Deadline
from shared.model.streams import Published
from shared.publish.lots import Lots
from shared.publish.matching import EVENTS_A_TURN, Matched, devices_of, match
from shared.publish.repair import matched_slowly, repair
from shared.publish.request import Posted
from shared.publish.round import Round
from shared.publish.single_append import SingleAppend, round_of
from shared.publish.sizes import count_stored
from shared.publish.state import Account, OnEnd, Publish, Taken, counts_of
from shared.publish.stores import PublishStores

_PUBLISHED = telemetry.published.series()
_QUEUED = telemetry.queued.series()
_REPAIRED = telemetry.repaired.series()
# Publishes that have waited for a repair. Beginning a thousand of them at once would stop the event loop.
_BEGUN_A_TURN = 50


class Publisher:
    """Appends each event to the queue of every matching channel."""

    def __init__(
        self,
        stores: PublishStores,
        *,
        on_credentials_version: Callable[[bytes, float], None] = lambda *_: None,
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        """Each round trip reads the version of all credentials too.

        `on_credentials_version` gets it, and a time of `time.monotonic` before it was read.
        """
        self._stores = stores
        self._on_credentials_version = on_credentials_version
        self._now_ms = now_ms
        self._lots = Lots()
        self._accounts: dict[str, Account] = {}
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, posted: Posted, *, deadline: Deadline | None = None) -> list[int]:
        """Appends the events, in order. Returns for each the number of channels and sessions it went to.

        As `Published`, with their offsets, if some are retained. When this returns, Redis holds everything.
        Raises Invalid for an unknown addressee; TooLarge for too many notifications; StoreUnavailable;
        DeadlinePassed. After an error some notifications may be appended, so a repetition may duplicate them.
        """
        ended: asyncio.Future[list[int] | Exception] = asyncio.get_running_loop().create_future()

        def on_end(result: list[int] | Exception) -> None:
            if not ended.done():
                ended.set_result(result)

        self.begin(posted, on_end, deadline=deadline)
        result = await ended
        if isinstance(result, Exception):
            raise result
        return result

    def begin(self, posted: Posted, on_end: OnEnd, *, deadline: Deadline | None = None) -> None:
        """The same by callback: no task and no coroutine in the usual case."""
        account = self._accounts.get(posted.account_id)
        if account is None:
            account = self._accounts[posted.account_id] = Account(posted.account_id)
        account.open += 1
        span = None
        if posted.traceparent or telemetry.spans.enabled:
            span = telemetry.PublishSpan(account.id, len(posted.events), traceparent=posted.traceparent)
        number, started_s = next(self._numbers), time.monotonic()
        taken = Taken([0] * len(posted.events))
        publish = Publish(account, posted, on_end, number, self._now_ms(), started_s, span, taken, deadline)
        try:
            if self._admit(publish):
                self._match_now(publish)
        except Exception as error:
            self._end(publish, error)

    def _admit(self, publish: Publish) -> bool:
        """Whether the account's rates let it go on now; False: they call `_on_admitted`.

        Raises QuotaExceeded.
        """
        rates, posted = self._stores.rates, publish.posted
        if self._stores.stored_bytes is not None:
            self._stores.stored_bytes.check(posted.account_id)
        return rates is None or rates.admit(
            posted.account_id,
            posted.api_key_id,
            events=len(posted.events),
            size_bytes=len(posted.body),
            on_admitted=partial(self._on_admitted, publish, 0),
        )

    def _on_admitted(self, publish: Publish, copies: int, refusal: Exception | None) -> None:
        if refusal is not None:
            self._end(publish, refusal)
            return
        publish.paid_copies += copies
        # Again: the tables may have changed meanwhile.
        self._match(publish)

    def _match(self, publish: Publish) -> None:
        try:
            self._match_now(publish)
        except Exception as error:
            self._end(publish, error)

    def _match_now(self, publish: Publish) -> None:
        account, events = publish.account, publish.posted.events
        if account.repair is not None:
            account.waiting.append(publish)
            return
        table, every = self._stores.routing.tables.cached(account.id)
        if table is None or every is None:
            self._repair_later(publish)
            return
        if len(events) > EVENTS_A_TURN or (table.device_type_patterns and devices_of(events, table)):
            self._start(self._match_slowly(publish))
            return
        try:
            matched = match(publish.posted, table, every, now_ms=publish.now_ms)
        except Invalid:
            # A table that is behind proves nothing.
            self._repair_later(publish)
            return
        if matched is None or matched.is_wide:
            self._start(self._match_slowly(publish))
        else:
            self._send(publish, matched)

    async def _match_slowly(self, publish: Publish) -> None:
        try:
            matched = await matched_slowly(self._stores, publish)
            if matched is not None:
                self._send(publish, matched)
                return
        except Invalid:
            # As above.
            pass
        except Exception as error:
            # Of `_send` too: a publish that never ends would keep its client waiting.
            self._end(publish, error)
            return
        self._repair_later(publish)

    def _send(self, publish: Publish, matched: Matched) -> None:
        account, unconfirmed = publish.account, matched.table.unconfirmed
        if account.repair is not None:
            account.waiting.append(publish)
        elif not self._pay_copies(publish, matched.copies):
            return
        elif unconfirmed and not unconfirmed.isdisjoint(matched.channels):
            # A channel may refuse this append and accept the next one: let none overtake it.
            self._repair_later(publish)
        else:
            account.in_flight += 1
            self._lots.send(round_of(self._stores, publish, matched, self._on_round))

    def _pay_copies(self, publish: Publish, copies: int) -> bool:
        """Whether the account's rate lets it make its notifications now; False: `_on_admitted` is called."""
        rates, unpaid = self._stores.rates, copies - publish.paid_copies
        if rates is None or unpaid <= 0:
            return True
        if not rates.admit_copies(publish.account.id, unpaid, partial(self._on_admitted, publish, unpaid)):
            return False
        publish.paid_copies = copies
        return True

    def _on_round(self, sent: Round | SingleAppend) -> None:
        publish = sent.publish
        account = publish.account
        account.in_flight -= 1
        try:
            is_complete = not sent.record() and sent.is_current()
            credentials, quotas = sent.versions.of_credentials_and_quotas
            self._on_credentials_version(credentials, publish.started_s)
            if self._stores.rates is not None:
                self._stores.rates.on_version(quotas)
        except Exception as error:
            self._end(publish, error)
        else:
            if is_complete:
                self._end(publish, sent.matched)
            else:
                _REPAIRED.total += 1
                self._repair_later(publish)
        if account.idle is not None and not account.in_flight:
            account.idle.set_result(None)
            account.idle = None

    def _end(self, publish: Publish, result: Matched | Exception) -> None:
        """Ends the publish with what its events matched at last, or with an error."""
        account = publish.account
        account.open -= 1
        if not account.open and account.repair is None:
            del self._accounts[account.id]
        telemetry.publish_s.record(time.monotonic() - publish.started_s)
        error = result if isinstance(result, Exception) else None
        if publish.span is not None:
            publish.span.end(error)
        if isinstance(result, Exception):
            _call(publish.on_end, result)
            return
        if self._stores.stored_bytes is not None:
            count_stored(self._stores.stored_bytes, publish, result)
        counts = publish.taken.counts if not result.sessions else counts_of(publish, result)
        _QUEUED.total += sum(counts)
        _PUBLISHED.total += len(counts)
        offsets = publish.taken.offsets
        _call(publish.on_end, Published(counts, offsets) if offsets else counts)

    def _repair_later(self, publish: Publish) -> None:
        account = publish.account
        account.stale.append(publish)
        if account.repair is None:
            account.repair = self._start(self._repair(account))

    async def _repair(self, account: Account) -> None:
        repairing = account.repair
        await repair(self._stores, self._lots, account, on_end=self._end)
        while self._begin_waiting(account):
            # Those that arrive meanwhile wait behind the others.
            account.repair = repairing
            await asyncio.sleep(0)
            await repair(self._stores, self._lots, account, on_end=self._end)
        if not account.open and self._accounts.get(account.id) is account:
            del self._accounts[account.id]

    def _begin_waiting(self, account: Account) -> bool:
        """Begins publishes that have waited, in the order of arrival; returns whether there are more.

        The first of them that needs a repair makes the others wait for that.
        """
        account.repair = None
        for _ in range(min(_BEGUN_A_TURN, len(account.waiting))):
            self._match(account.waiting.popleft())
            if account.is_repairing:
                return False
        return bool(account.waiting)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _call(on_end: OnEnd, result: list[int] | Exception) -> None:
    """Reports an error of the callback to the loop: the account's other publishes must go on."""
    try:
        on_end(result)
    except Exception as error:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "the callback of a publish failed", "exception": error})
