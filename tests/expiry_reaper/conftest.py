"""Reapers on a real Valkey that is flushed before each test."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol, cast

import pytest

from services import composition
from services.expiry_reaper.reaper import Reaper, Round, Schedule
from services.expiry_reaper.visits import Lifetimes
from shared.model.channels import Kind
from shared.redis.client import connect
from shared.store.scripts import load_scripts
from tests.harness import leaks
from tests.harness.valkey import Valkey, running_valkey
from tests.store.stores import Backend, Stores

PULL_EXPIRY_MS = 600_000
DAY_MS = 24 * 3600 * 1000
# Longer than a test takes, and than what two clocks may differ by.
MARGIN_MS = 60_000
HEARTBEAT_TTL_S = 15.0
IDLE_EXPIRY_MS: Mapping[Kind, int] = {Kind.WEBSOCKET: DAY_MS, Kind.PULL: PULL_EXPIRY_MS}


class MakeReaper(Protocol):
    """Makes another reaper, with other settings than the usual ones."""

    def __call__(self, idle_expiry_ms: Mapping[Kind, int] = IDLE_EXPIRY_MS, **schedule: Any) -> Reaper: ...


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
async def stores(valkey: Valkey) -> AsyncIterator[Stores]:
    with valkey.client() as direct:
        direct.flushall()
        async with connect(valkey.url) as redis:
            yield Stores(redis, Backend(lambda: redis, direct, load_scripts()))
        leaks.assert_every_name_goes(direct)


@pytest.fixture
def make_reaper(stores: Stores) -> MakeReaper:
    def make(idle_expiry_ms: Mapping[Kind, int] = IDLE_EXPIRY_MS, **schedule: Any) -> Reaper:
        usual = {
            "every_s": 5.0,
            "heartbeat_s": 5.0,
            "heartbeat_ttl_s": HEARTBEAT_TTL_S,
            "reconcile_every_s": 86_400.0,
            "reconcile_commands_per_s": 100_000.0,
        }
        lifetimes = Lifetimes(idle_expiry_ms=idle_expiry_ms, notification_ms=DAY_MS)
        return Reaper(cast(composition.Stores, stores), lifetimes, Schedule(**{**usual, **schedule}))

    return make


@pytest.fixture
def reaper(make_reaper: MakeReaper) -> Reaper:
    return make_reaper()


async def run_round(reaper: Reaper) -> Round:
    """One round, which no other one may prevent."""
    done = await reaper.round()
    assert done is not None
    return done
