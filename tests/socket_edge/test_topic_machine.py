"""Appends, wakeups, replies, losses and readers in any order: no hole untold, no double, nothing stuck.

`test_a_planted_bug_is_found` shows that the search would notice.
"""

from collections.abc import Callable
from typing import Any

import pytest

from services.socket_edge.streams import topic_feed, topic_hub, topic_reading, topic_turns
from services.socket_edge.streams.topic_feed import TopicFeed
from services.socket_edge.streams.topic_reading import Heard, Reading
from shared.store.stream_wakeups import StreamWakeup
from tests.socket_edge.topic_world import PAGE, Subscription, run

RUNS = 400
MOST_RUNS = 3000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bounds, so that they are reached."""
    monkeypatch.setattr(topic_hub, "subscription", Subscription)
    monkeypatch.setattr(topic_turns, "READ_LOT", PAGE)
    monkeypatch.setattr(topic_turns, "READERS_PER_TURN", 2)
    monkeypatch.setattr(topic_hub, "READERS_AT_ONCE", 2)
    monkeypatch.setattr(topic_feed, "_WAITING_LIMIT", 2)
    monkeypatch.setattr(topic_feed, "_RETRY_S", 0.0)


@pytest.mark.parametrize("tenth", range(10))
async def test_no_order_breaks_a_promise(tenth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if tenth % 2:
        monkeypatch.setattr(topic_reading, "_MOST_HEARD", 2)
    for seed in range(tenth * RUNS // 10, (tenth + 1) * RUNS // 10):
        assert await run(seed) == [], f"seed {seed}"


@pytest.mark.long
async def test_no_order_of_many_breaks_a_promise() -> None:
    for seed in range(RUNS, 10 * RUNS):
        assert await run(seed, count=200) == [], f"seed {seed}"


def _hands_on_unchecked(patch: pytest.MonkeyPatch) -> None:
    """Any wakeup is taken for the next one."""
    patch.setattr(StreamWakeup, "follows", lambda self, mark: True)


def _tells_no_hole(patch: pytest.MonkeyPatch) -> None:
    """A reader is told where it is once only."""
    start = Reading.start

    def once(self: Reading, *args: Any, **more: Any) -> None:
        if not self.has_started:
            start(self, *args, **more)

    patch.setattr(Reading, "start", once)


def _is_live_too_early(patch: pytest.MonkeyPatch) -> None:
    """Who has read to the end is live, wherever the feed is."""
    place = TopicFeed._place

    def early(self: TopicFeed, is_at_end: bool, reading: Reading) -> None:
        if is_at_end and self.mark is not None:
            self._go_live(reading)
        else:
            place(self, is_at_end, reading)

    patch.setattr(TopicFeed, "_place", early)


def _keeps_what_redis_has_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Heard, "clear", lambda self: None)


def _never_checks(patch: pytest.MonkeyPatch) -> None:
    """A wakeup that does not follow is ignored."""
    patch.setattr(TopicFeed, "check", lambda self: None)


def _forgets_what_was_heard(patch: pytest.MonkeyPatch) -> None:
    """A reply that comes behind wakeups is taken for the end."""

    def place(self: TopicFeed, is_at_end: bool, reading: Reading) -> None:
        if is_at_end:
            self.mark = reading.mark
        place_at(self, is_at_end, reading)

    place_at = TopicFeed._place
    patch.setattr(TopicFeed, "_place", place)


def _calls_who_has_left(patch: pytest.MonkeyPatch) -> None:
    """A delivery that waits for its turn is handed over to all that it was meant for."""
    leaving = Reading.leave

    def leave(self: Reading) -> None:
        hears = self.on_events
        leaving(self)
        self.on_events = hears

    patch.setattr(Reading, "leave", leave)


# With the seed that the search begins at: just before it finds the bug, so that the test is short.
BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], str, int]] = [
    (_hands_on_unchecked, "something is missing", 0),
    (_tells_no_hole, "something is missing", 0),
    (_is_live_too_early, "something is missing", 0),
    (_keeps_what_redis_has_lost, "twice", 20),
    (_never_checks, "stuck", 0),
    (_forgets_what_was_heard, "something is missing", 30),
    (_calls_who_has_left, "called after", 490),
]


@pytest.mark.parametrize(
    ("plant", "rule", "first"), BUGS, ids=[plant.__name__.strip("_") for plant, *_ in BUGS]
)
async def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], rule: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(first, first + MOST_RUNS):
        if any(rule in each for each in await run(seed)):
            return
    raise AssertionError(f"not found in {MOST_RUNS} runs")
