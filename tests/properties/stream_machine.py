"""A state machine of everything that can happen to a stream while it is read."""

import sys
from collections.abc import Mapping, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shared.model.streams import Start
from shared.redis.pipeline import Script
from tests.harness.valkey import Valkey
from tests.properties.machine import BUDGET
from tests.properties.stream_installation import MakeReader, Reader, StreamInstallation

_MOST_READERS = 4

WHICH = st.integers(0, 5)
COUNT = st.integers(1, 4)
KINDS = st.lists(
    st.sampled_from(["public", "public", "public", "large", "for a channel", "for a customer"]),
    min_size=1,
    max_size=4,
)
MOST = st.sampled_from([100, 100, 5, 3, 1])
START = st.sampled_from(Start)

STREAM_BUDGET = settings(BUDGET, stateful_step_count=40)


class StreamReading(RuleBasedStateMachine):
    """The rules. Each is one step of Redis; a wakeup is heard some steps later, or never."""

    def __init__(self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: MakeReader = Reader) -> None:
        super().__init__()
        self._there = StreamInstallation(valkey, scripts=scripts, make_reader=actor)

    @initialize()
    def begin(self) -> None:
        """Starts with a reader who waits for the first event, and one who has had three of them."""
        self._there.join(Start.LATEST, count=1)
        self._there.publish(["public"] * 3, most=100)
        self._there.join(Start.EARLIEST, count=3)

    def invariants_hold(self) -> None:
        """Each step checks them."""

    @rule(kinds=KINDS, most=MOST)
    def publish(self, kinds: Sequence[str], most: int) -> None:
        self._there.publish(kinds, most=most)

    @rule(which=WHICH)
    def age(self, which: int) -> None:
        self._there.age(which)

    @rule()
    def expire(self) -> None:
        self._there.expire()

    @rule()
    def purge(self) -> None:
        self._there.purge()

    @rule()
    def save(self) -> None:
        self._there.save()

    @rule(which=WHICH)
    def lose_tail(self, which: int) -> None:
        self._there.lose_tail(which)

    @rule(which=WHICH, kinds=KINDS, count=COUNT)
    def lose_the_end(self, which: int, kinds: Sequence[str], count: int) -> None:
        """A reader has had events that Redis then loses, and others come instead."""
        self._there.save()
        self._there.publish(kinds, most=100)
        self.read(which, count)
        self._there.lose_tail(-1)
        self._there.publish(kinds, most=100)
        self.read(which, count)

    @rule(which=WHICH, kinds=KINDS, count=COUNT)
    def fail_over(self, which: int, kinds: Sequence[str], count: int) -> None:
        """A reader has had events that the next primary has not, whose clock gives their times again."""
        self._there.save()
        self._there.stop_clock()
        self._there.publish(kinds, most=100)
        self.read(which, count)
        self._there.lose_tail(-1)
        self._there.publish(kinds, most=100)
        self._there.start_clock()
        self.hear(which, count)

    @rule(only_state=st.booleans())
    def flush(self, only_state: bool) -> None:
        self._there.flush(only_state=only_state)

    @precondition(lambda self: len(self._there.readers) < _MOST_READERS)
    @rule(start=START, count=COUNT)
    def join(self, start: Start, count: int) -> None:
        self._there.join(start, count=count)

    @rule(which=WHICH, count=COUNT)
    def read(self, which: int, count: int) -> None:
        self._there.run(self._reader(which).read(count=count))

    @rule(which=WHICH, count=COUNT)
    def hear(self, which: int, count: int) -> None:
        self._there.run(self._reader(which).hear(count=count))

    @rule(which=WHICH)
    def lose_a_wakeup(self, which: int) -> None:
        if inbox := self._reader(which).inbox:
            inbox.popleft()

    @rule(which=WHICH, is_late=st.booleans())
    def miss_a_wakeup(self, which: int, is_late: bool) -> None:
        """A reader at the end reads before a wakeup comes, or loses it; then it hears what is there."""
        reader = self._reader(which)
        self._there.run(reader.read_all())
        reader.inbox.clear()
        self._there.publish(["public"], most=100)
        if is_late:
            self.read(which, 4)
        else:
            self.lose_a_wakeup(which)
        self._there.publish(["public"], most=100)
        for _ in range(2):
            self.hear(which, 4)

    @rule()
    def read_all(self) -> None:
        """All readers read to the end."""
        self._there.read_all()

    def _reader(self, which: int) -> Reader:
        return self._there.readers[which % len(self._there.readers)]

    def teardown(self) -> None:
        """Skips the final check after a failure: it would report a consequence."""
        failed = sys.exc_info()[1] is not None
        try:
            if not failed:
                self._there.read_all()
        finally:
            self._there.close()
