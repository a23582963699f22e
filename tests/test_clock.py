"""The clock of a process: Redis' time by samples, through jitter, failovers and clocks that are set."""

import ast
import random
from itertools import pairwise
from pathlib import Path

import pytest

from shared.clock import Clock, Sample

CHECKOUT = Path(__file__).resolve().parents[1]
MS = 1_000_000
S = 1000 * MS
START_NS = 1_700_000_000 * S


class World:
    """A machine and its Redis. Time passes only by `pass_ms` and by asking."""

    def __init__(self) -> None:
        self.true_ns = START_NS
        self.monotonic_from_ns = START_NS - 5 * S
        self.system_ahead_ns = 0
        self.redis_ahead_ns = 0
        self.clock = Clock(monotonic_ns=self.monotonic_ns, system_ns=self.system_ns)

    def monotonic_ns(self) -> int:
        return self.true_ns - self.monotonic_from_ns

    def system_ns(self) -> int:
        return self.true_ns + self.system_ahead_ns

    def pass_ms(self, ms: float) -> None:
        self.true_ns += round(ms * MS)

    def asked(self, *, there_ms: float = 0.1, back_ms: float = 0.1, ahead_ns: int | None = None) -> Sample:
        """A sample of a Redis; of the one whose clock is `ahead_ns` ahead, if that is given."""
        asked_ns = self.monotonic_ns()
        self.pass_ms(there_ms)
        redis_ns = self.true_ns + (self.redis_ahead_ns if ahead_ns is None else ahead_ns)
        self.pass_ms(back_ms)
        return Sample(asked_ns, redis_ns // 1000 * 1000, self.monotonic_ns())

    def learn(self, *, there_ms: float = 0.1, back_ms: float = 0.1) -> None:
        self.clock.learn({"": self.asked(there_ms=there_ms, back_ms=back_ms)})

    @property
    def error_ms(self) -> float:
        """How far the clock is ahead of Redis' time."""
        return self.clock.now_ms() - (self.true_ns + self.redis_ahead_ns) / MS


@pytest.fixture
def world() -> World:
    return World()


def test_before_the_first_sample_it_is_the_systems_time(world: World) -> None:
    world.system_ahead_ns = 90 * S

    assert world.clock.now_ms() == START_NS // MS + 90_000
    assert world.clock.ahead_ns() is None
    assert world.clock.spread_ns() is None


@pytest.mark.parametrize("ahead_s", [25 * 3600, -25 * 3600])
def test_after_the_first_sample_the_systems_time_does_not_count(world: World, ahead_s: int) -> None:
    world.system_ahead_ns = ahead_s * S
    world.clock.now_ms()

    world.learn()

    assert abs(world.error_ms) <= 1
    assert world.clock.ahead_ns() == pytest.approx(ahead_s * S, abs=MS)
    world.system_ahead_ns = 0
    world.pass_ms(60_000)
    assert abs(world.error_ms) <= 1, "it goes on by the monotonic clock, also without Redis"
    assert world.clock.ahead_ns() == pytest.approx(0, abs=MS)


def test_the_shortest_round_trip_of_the_last_ones_bounds_the_error(world: World) -> None:
    dice = random.Random(7)
    trips_ms: list[float] = []
    shown_ms: list[int] = []
    for _ in range(500):
        there_ms, back_ms = (dice.choice([0.1, 5, 200]) * dice.random() for _ in range(2))
        trips_ms.append(there_ms + back_ms)
        world.learn(there_ms=there_ms, back_ms=back_ms)
        shown_ms.append(world.clock.now_ms())
        if len(trips_ms) > 8:
            # A correction back makes it stand still: later by what the sample before was wrong.
            assert abs(world.error_ms) <= max(min(trips_ms[-8:]), min(trips_ms[-9:-1])) / 2 + 1
        world.pass_ms(10_000)
    assert all(before <= after for before, after in pairwise(shown_ms)), "it went back"


def test_a_freeze_while_a_reply_was_on_its_way_spoils_nothing(world: World) -> None:
    world.learn()
    world.learn(back_ms=30_000)

    assert abs(world.error_ms) <= 1


def test_a_small_correction_back_makes_it_stand_still(world: World) -> None:
    world.learn(there_ms=400)
    early_ms = world.clock.now_ms()
    assert world.error_ms == pytest.approx(200, abs=2)

    world.learn()

    assert world.clock.now_ms() == early_ms
    world.pass_ms(100)
    assert world.clock.now_ms() == early_ms
    world.pass_ms(100)
    assert abs(world.error_ms) <= 1


@pytest.mark.parametrize("ahead_s", [3600, 0.3, -0.3, -3600])
def test_a_clock_of_redis_that_is_set_is_followed_with_the_next_sample(world: World, ahead_s: float) -> None:
    for _ in range(8):
        world.learn()
        world.pass_ms(10_000)
    before_ms = world.clock.now_ms()

    world.redis_ahead_ns = round(ahead_s * S)
    world.learn(there_ms=20, back_ms=20)

    if ahead_s == -0.3:
        assert world.clock.now_ms() == before_ms
        world.pass_ms(300)
    assert abs(world.error_ms) <= 1


def test_redis_clock_may_be_slewed(world: World) -> None:
    """By 500 ppm, as NTP does: the samples of the last 80 s still fit each other."""
    for _ in range(100):
        world.learn()
        assert abs(world.error_ms) <= 42
        world.pass_ms(10_000)
        world.redis_ahead_ns -= 5 * MS


def test_of_several_primaries_the_median_counts(world: World) -> None:
    def learn(**ahead_ns: int) -> None:
        world.clock.learn({name: world.asked(ahead_ns=value) for name, value in ahead_ns.items()})

    learn(a=0, b=5 * MS, c=3600 * S)
    assert world.error_ms == pytest.approx(5, abs=2)
    assert world.clock.spread_ns() == pytest.approx(3600 * S, abs=MS)

    learn(b=5 * MS, a=0)
    assert world.error_ms == pytest.approx(5, abs=6)
    assert world.clock.spread_ns() == pytest.approx(5 * MS, abs=MS), "the third one is no primary any more"


def test_without_a_sample_it_goes_on(world: World) -> None:
    world.learn()
    world.clock.learn({})
    world.pass_ms(86_400_000)

    assert abs(world.error_ms) <= 1


READS_SYSTEM_TIME = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "date.today",
    "time.gmtime",
}
# Spans carry the time of the machine, as the publisher's do.
OF_SPANS = {
    "shared/delivery/loop.py",
    "shared/delivery/tracing.py",
    "services/webhook_dispatcher/delivery.py",
    "services/webhook_dispatcher/entry_delivery.py",
}


def test_nothing_else_reads_the_systems_time() -> None:
    paths = [path for top in ("services", "shared") for path in (CHECKOUT / top).rglob("*.py")]
    reading = {
        str(path.relative_to(CHECKOUT))
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in READS_SYSTEM_TIME
    }

    assert reading == {"shared/clock.py", *OF_SPANS}
    for name in OF_SPANS:
        lines = [line for line in (CHECKOUT / name).read_text().splitlines() if "time.time" in line]
        assert all("_ns" in line for line in lines), "spans count in nanoseconds, and nothing else does"
