"""Reading Redis' time, and saying so when clocks differ."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

from shared.clock import Clock
from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands
from shared.store import timekeeping
from shared.store.timekeeping import Timekeeper
from tests.harness.waiting import wait_until
from tests.store.stores import Stores

HOUR_NS = 3600 * 1_000_000_000


class Primary:
    """A Redis that knows only TIME."""

    def __init__(self, *, ahead_ns: int = 0) -> None:
        self.ahead_ns = ahead_ns
        self.error: Exception | None = None
        self.asked = 0

    async def command(self, *arguments: str) -> list[bytes]:
        assert arguments == ("TIME",)
        self.asked += 1
        if self.error is not None:
            raise self.error
        microseconds = (time.time_ns() + self.ahead_ns) // 1000
        return [b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)]


class Primaries:
    """A Redis with these primaries."""

    def __init__(self, **named: Primary) -> None:
        self.named = named

    async def primaries(self) -> Mapping[str, Primary]:
        return self.named


class Machine:
    """Clocks of a machine; the test lets time pass."""

    def __init__(self) -> None:
        self.passed_ns = 0
        self.ahead_ns = 0
        self.clock = Clock(
            monotonic_ns=lambda: time.monotonic_ns() + self.passed_ns,
            system_ns=lambda: time.time_ns() + self.passed_ns + self.ahead_ns,
        )

    def keeper(self, redis: Any) -> Timekeeper:
        return Timekeeper(cast(RedisCommands, redis), clock=self.clock)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def is_about(clock: Clock, ahead_ns: int) -> bool:
    return abs(clock.now_ms() - (time.time_ns() + ahead_ns) // 1_000_000) < 60_000


async def test_the_clock_shows_the_time_of_a_real_redis(stores: Stores, machine: Machine) -> None:
    machine.ahead_ns = HOUR_NS

    await machine.keeper(stores.calls).measure()

    seconds, microseconds = stores.direct.time()
    assert 0 <= seconds * 1000 + microseconds // 1000 - machine.clock.now_ms() + 1000 < 2000
    assert machine.clock.ahead_ns() == pytest.approx(HOUR_NS, abs=1_000_000_000)
    assert machine.clock.spread_ns() == 0


async def test_a_dead_primary_does_not_keep_the_others_from_counting(machine: Machine) -> None:
    dead, living = Primary(), Primary(ahead_ns=HOUR_NS)
    dead.error = StoreUnavailable(why="ConnectionError")
    keeper = machine.keeper(Primaries(dead=dead, living=living))

    await keeper.measure()

    assert is_about(machine.clock, HOUR_NS)
    living.error = StoreUnavailable(why="TimeoutError")
    with pytest.raises(StoreUnavailable):
        await keeper.measure()
    assert is_about(machine.clock, HOUR_NS), "without Redis it goes on"


async def test_an_error_of_ours_is_not_hidden(machine: Machine) -> None:
    wrong, right = Primary(), Primary()
    wrong.error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong"):
        await machine.keeper(Primaries(wrong=wrong, right=right)).measure()


async def test_after_a_failover_the_clock_of_the_new_primary_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeping, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(timekeeping, "_RETRY_S", 0.01)
    primary = Primary()
    keeping = asyncio.create_task(machine.keeper(Primaries(only=primary)).keep())
    await wait_until(lambda: primary.asked > 10)
    assert is_about(machine.clock, 0)

    primary.error = StoreUnavailable(why="ConnectionError")
    asked = primary.asked
    await wait_until(lambda: primary.asked > asked + 3)
    primary.error, primary.ahead_ns = None, -HOUR_NS
    await wait_until(lambda: is_about(machine.clock, -HOUR_NS))

    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_a_wrong_clock_is_logged_once_per_change_and_minute(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=timekeeping.__name__)
    primary = Primary()
    keeper = machine.keeper(Primaries(only=primary))

    async def logged(*, ahead_s: int, after_s: int = 0) -> list[str]:
        machine.ahead_ns = ahead_s * 1_000_000_000
        machine.passed_ns += after_s * 1_000_000_000
        primary.ahead_ns = machine.passed_ns
        caplog.clear()
        await keeper.measure()
        return [record.message for record in caplog.records]

    assert await logged(ahead_s=0) == []
    assert await logged(ahead_s=90) == ["clock.off"]
    assert await logged(ahead_s=90, after_s=600) == [], "it has not changed"
    assert await logged(ahead_s=-90) == ["clock.off"]
    assert await logged(ahead_s=0, after_s=10) == []
    assert await logged(ahead_s=0, after_s=60) == ["clock.right"]
    assert await logged(ahead_s=0, after_s=60) == []


async def test_primaries_whose_clocks_differ_are_logged(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    primaries = Primaries(a=Primary(), b=Primary(), c=Primary(ahead_ns=HOUR_NS))

    await machine.keeper(primaries).measure()

    [record] = caplog.records
    assert record.message == "redis.clocks-differ"
    assert vars(record)["facts"]["seconds"] == pytest.approx(3600, abs=1)
    assert is_about(machine.clock, 0), "the median counts"
