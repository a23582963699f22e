"""One topic on this edge: what comes by its live wakeups, and readers who catch up until they hear these too.

The feed has a mark, up to which its live readers have everything. A wakeup that names the mark as what was
before it is handed on; any other makes the feed read from its mark. A reader who is behind the feed, or ahead
of it, has a mark of its own. It reads from there, page by page, until it is where the feed is; those at the
same mark share a read. What is heard meanwhile is kept, since a reader may arrive where one of it begins.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from services.socket_edge.streams.topic_reader import Delivery, Started, TopicReader
from services.socket_edge.streams.topic_reading import Heard, Lots, Reading, call_each, hand_over
from services.socket_edge.streams.topic_turns import Memory, Reads, Turns
from shared.model.streams import BEGINNING, Mark, Resumed, Start
from shared.store.stream_wakeups import StreamWakeup

_RETRY_S = 0.25
_LONGEST_RETRY_S = 5.0
# When more waits for its turn, the feed reads it later: a page is one call for many events.
_WAITING_LIMIT = 64


class Hub(Protocol):
    """What all feeds of an edge share."""

    turns: Turns
    reads: Reads
    memory: Memory

    def on_readers(self, feed: "TopicFeed") -> None:
        """The number of its readers has changed."""


class TopicFeed:
    """The readers of one topic."""

    def __init__(self, hub: Hub, account_id: str, topic: str) -> None:
        self.account_id = account_id
        self.topic = topic
        self.mark: Mark | None = None
        """Up to which live readers have everything; None when no reader can be live."""
        self.readings: dict[Reading, None] = {}
        self._hub = hub
        # Of the last read; None before it.
        self._first: str | None = None
        self._live: dict[Reading, None] = {}
        # The live ones as they are called; None when one has come or gone since.
        self._called: tuple[Reading, ...] | None = ()
        # At the end of the stream, of which the feed has not heard yet.
        self._ahead: dict[Reading, None] = {}
        self._wanted: dict[Mark | Start, list[Reading]] = {}
        self._asked: set[Mark | Start] = set()
        self._heard = Heard(hub.memory)
        self._waiting = Lots(hub.memory)
        self._is_planned = False
        # More came than the readers could be called for: it is read when they were.
        self._lags = False
        self._is_subscribed = False
        self._is_checking = False
        self._must_check = False
        self._retry: asyncio.TimerHandle | None = None
        self._failures = 0

    def join(self, reader: TopicReader, *, since: Mark | Start) -> Reading:
        """The reader hears nothing before this returns."""
        reading = Reading(self, reader)
        self.readings[reading] = None
        self._hub.on_readers(self)
        asyncio.get_running_loop().call_soon(self._begin, since, reading)
        return reading

    def remove(self, reading: Reading) -> None:
        """The reader has left."""
        self.readings.pop(reading, None)
        self._ahead.pop(reading, None)
        if reading in self._live:
            del self._live[reading]
            self._called = None
        self._hub.on_readers(self)

    def close(self) -> None:
        """The feed has no readers, and does nothing more."""
        self._heard.clear()
        self._waiting.clear()
        self._is_subscribed = False
        if self._retry is not None:
            self._retry.cancel()

    def _begin(self, since: Mark | Start, reading: Reading) -> None:
        mark, first = self.mark, self._first
        if mark is None or first is None or not self._is_subscribed or since not in (mark, Start.LATEST):
            self._want(reading, since)
            return
        started = Started(self.topic, mark, None, first, mark.offset)
        call_each([reading], lambda reading: reading.start(started, since=since))
        self._go_live(reading)

    # Calls of readers, in turns

    @property
    def has_work(self) -> bool:
        return bool(self._waiting)

    def work(self, most: int) -> int:
        done = self._waiting.work(most) if self._waiting else 0
        if not self._waiting:
            self._is_planned = False
            if self._lags:
                self._lags = False
                self.check()
        return done

    def _deliver(self, delivery: Delivery) -> None:
        """The live readers get it: at once if they are few, and have no other calls before it."""
        called = self._called
        if called is None:
            called = self._called = tuple(self._live)
        turns = self._hub.turns
        if not self._is_planned and len(called) <= turns.left:
            turns.left -= len(called)
            hand_over(called, delivery)
        elif called:
            self._plan()
            self._lags |= not self._waiting.deliver(called, delivery)

    def _call_each(self, readings: Iterable[Reading], call: Callable[[Reading], None]) -> None:
        if called := tuple(readings):
            self._plan()
            self._waiting.call(called, call)

    def _plan(self) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._hub.turns.add(self)

    # What comes

    def on_subscribed(self) -> None:
        """Wakeups come from now on."""
        self._is_subscribed = True
        for since in list(self._wanted):
            self._ask(since)
        self.sweep()

    def on_lost(self) -> None:
        """Wakeups may be missed, and Redis may return without what the last ones told."""
        self._is_subscribed = False
        self._heard.clear()

    def sweep(self) -> None:
        """Checks the mark; without readers the next one begins anew."""
        if self.readings:
            self.check()
        else:
            self.mark = None

    def on_wakeup(self, wakeup: StreamWakeup) -> None:
        mark = self.mark
        if not self.readings:
            self.mark = wakeup.mark if mark is not None and wakeup.follows(mark) else None
            return
        parts = None if self._lags else wakeup.entries
        if parts is None:
            self.check()
            return
        delivery = Delivery(self.topic, wakeup.epoch, None, wakeup.last, parts=parts)
        if self._is_checking or len(self._live) < len(self.readings):
            self._heard.add(Mark(wakeup.epoch, wakeup.before), delivery)
        if mark is None:
            # As good as any: who catches up finds it among what was heard.
            self.mark = delivery.mark
        elif not wakeup.follows(mark):
            self.check()
        elif self._is_planned and len(self._waiting) >= _WAITING_LIMIT:
            self._lags = True
        else:
            self._advance(delivery)

    def check(self) -> None:
        """Reads from the mark, and hands on what is new; a hole makes each reader read from there."""
        if self.mark is None or self._is_checking or self._lags:
            self._must_check = True
        elif self._is_subscribed:
            self._is_checking, self._must_check = True, False
            self._hub.reads.begin(self.account_id, self._check)

    async def _check(self) -> None:
        asked, page = self.mark, None
        try:
            page = None if asked is None else await self._page(asked)
        finally:
            self._is_checking = False
        if page is None or asked is None:
            self._must_check = True
            if asked is not None:
                self._retry_later()
            return
        self._first = page.first
        mark = self.mark
        if mark is not None:
            self._use_check(asked, page, mark=mark)
        self._hand_on_heard()
        if self._must_check:
            self.check()
        else:
            self._look_at_ahead(self._wait_no_longer)

    def _use_check(self, asked: Mark, page: Resumed, *, mark: Mark) -> None:
        """`asked` was the mark when the page was read, `mark` is that of now."""
        if page.reason is not None:
            self._heard.clear()
            self._scatter()
        elif mark != asked:
            # Wakeups have moved it on, so it was good; what was read may yet be more than they told.
            self._must_check |= page.epoch != mark.epoch or _order(page.until) > _order(mark.offset)
        elif page.is_at_end or page.mark in self._heard:
            if page.mark != mark:
                self._advance(Delivery(self.topic, page.epoch, page.events, page.until))
        else:
            # More than a page: each reads it as it has room.
            self._scatter()

    def _advance(self, delivery: Delivery) -> None:
        """The live readers get what follows the mark."""
        self.mark = delivery.mark
        if self._first == "" and delivery.count:
            self._first = delivery.events[0].offset
        self._deliver(delivery)
        if self._ahead:
            self._look_at_ahead(self._wait_on)

    def _hand_on_heard(self) -> None:
        while self.mark is not None and (delivery := self._heard.behind(self.mark)) is not None:
            self._advance(delivery)
        self._forget_heard()

    def _scatter(self) -> None:
        """Each reader goes on from its own mark: that of the feed no longer holds, or is far behind."""
        if self.mark is not None:
            self._call_each(self._live, partial(self._leave_feed, self.mark))
        self._call_each(self._ahead, self._want_more)
        self.mark, self._called = None, ()
        self._live.clear()
        self._ahead.clear()

    def _leave_feed(self, mark: Mark, reading: Reading) -> None:
        reading.mark = mark
        self._want_more(reading)

    # Readers who catch up

    def _want(self, reading: Reading, since: Mark | Start) -> None:
        """The reader gets a page, with all others who want it from there."""
        wanted = self._wanted.get(since)
        if wanted is None:
            self._wanted[since] = [reading]
        else:
            wanted.append(reading)
        self._ask(since)

    def _want_more(self, reading: Reading) -> None:
        reading.ask_for_room(lambda reading: self._want(reading, reading.mark))

    def _ask(self, since: Mark | Start) -> None:
        if self._is_subscribed and since not in self._asked:
            self._asked.add(since)
            self._hub.reads.begin(self.account_id, partial(self._read, since))

    async def _read(self, since: Mark | Start) -> None:
        wanted = self._wanted.get(since, [])
        asking, is_wanted = len(wanted), any(not reading.has_left for reading in wanted)
        try:
            page = await self._page(since) if is_wanted else None
        finally:
            self._asked.discard(since)
        readings = self._wanted.pop(since, [])
        if page is None:
            if any(not reading.has_left for reading in readings):
                self._wanted[since] = readings
                self._retry_later()
            return
        if page.reason is not None:
            # Redis may have lost what was heard: a reader that goes on before it must not get it again.
            self._heard.clear()
            # Who came while it was read may know more: an offset that was not there may be there now.
            for reading in readings[asking:]:
                self._want(reading, since)
            readings = readings[:asking]
        self._first = page.first
        started = Started(self.topic, Mark(page.epoch, page.offset), page.reason, page.first, page.last)
        delivery = Delivery(self.topic, page.epoch, page.events, page.until)
        self._call_each(readings, partial(self._turn_page, since, page, started, delivery))

    def _turn_page(
        self, since: Mark | Start, page: Resumed, started: Started, delivery: Delivery, reading: Reading
    ) -> None:
        if page.reason is not None or not reading.has_started:
            reading.start(started, since=since)
        self._pass_on(reading, delivery)
        self._place(page.is_at_end, reading)

    def _pass_on(self, reading: Reading, delivery: Delivery) -> None:
        if delivery.mark != reading.mark:
            reading.on_events(delivery)
        reading.mark = delivery.mark

    def _place(self, is_at_end: bool, reading: Reading) -> None:
        """The reader is live if it is where the feed is; else it reads on, or waits for the feed."""
        while delivery := self._heard.behind(reading.mark):
            self._pass_on(reading, delivery)
        own = reading.mark
        if self.mark is None and is_at_end:
            # Without a stream readers may be at any offset; its first event follows the beginning.
            self.mark = own if own.epoch else Mark("", BEGINNING)
            if self._must_check:
                self.check()
        mark = self.mark
        if reading.has_left:
            return
        if mark == own:
            self._go_live(reading)
        elif not is_at_end or mark is None:
            self._want_more(reading)
        elif self._is_ahead(own):
            self._ahead[reading] = None
            if own.epoch:
                self.check()
        else:
            self.check()
            self._want_more(reading)

    def _go_live(self, reading: Reading) -> None:
        if not reading.has_left:
            self._live[reading] = None
            self._called = None
            self._forget_heard()

    def _is_ahead(self, own: Mark) -> bool:
        mark = self.mark
        return mark is not None and own.epoch == mark.epoch and _order(own.offset) > _order(mark.offset)

    def _look_at_ahead(self, call: Callable[[Reading], None]) -> None:
        if self._ahead:
            ahead, self._ahead = self._ahead, {}
            self._call_each(ahead, call)

    def _wait_on(self, reading: Reading) -> None:
        """The feed has moved: who was ahead of it may be where it is."""
        if self._is_ahead(reading.mark):
            self._ahead[reading] = None
        else:
            self._place(True, reading)

    def _wait_no_longer(self, reading: Reading) -> None:
        """The feed has read to the end: who is ahead of it now has a mark that Redis has lost."""
        if self._is_ahead(reading.mark) and reading.mark.epoch:
            self._want_more(reading)
        else:
            self._wait_on(reading)

    def _forget_heard(self) -> None:
        if not self._is_checking and len(self._live) == len(self.readings):
            self._heard.clear()

    async def _page(self, since: Mark | Start) -> Resumed | None:
        """None if there is none now."""
        page = await self._hub.reads.page(self.account_id, self.topic, since)
        if page is not None:
            self._failures = 0
        return page

    def _retry_later(self) -> None:
        if self._retry is None:
            delay_s = min(_LONGEST_RETRY_S, _RETRY_S * 2 ** min(self._failures, 8))
            self._failures += 1
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(delay_s * random.uniform(0.8, 1.2), self._read_again)

    def _read_again(self) -> None:
        self._retry = None
        for since in list(self._wanted):
            self._ask(since)
        if self._must_check:
            self.check()


def _order(offset: str) -> tuple[int, int]:
    ms, _, sequence = offset.partition("-")
    return int(ms), int(sequence)
