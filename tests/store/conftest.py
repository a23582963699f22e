"""Fixtures of the store's tests, which run on a real Valkey that is flushed before each."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from shared.redis.client import connect
from shared.redis.pipeline import Argument, Pipeline
from shared.store.scripts import load_scripts
from tests.harness import leaks
from tests.harness.overheard import Overheard
from tests.harness.valkey import Valkey, running_valkey
from tests.store.routing import Gateway
from tests.store.stores import Backend, RedisClock, Stores


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for the tests of this worker that leave it running."""
    yield from _running_valkey()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that the test may kill."""
    yield from _running_valkey()


def _running_valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def _one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that the keys of each script lie in one slot: a cluster would refuse others."""
    script = Pipeline.script

    def checked(pipeline: Pipeline, name: str, keys: Sequence[str], *arguments: Argument) -> Any:
        assert len({key_slot(key.encode()) for key in keys}) == 1, f"keys of {name}: {keys}"
        return script(pipeline, name, keys, *arguments)

    monkeypatch.setattr(Pipeline, "script", checked)


@pytest.fixture
def backend(shared_valkey: Valkey) -> Iterator[Backend]:
    """An empty Valkey."""
    with shared_valkey.client() as direct:
        direct.flushall()
        yield Backend(connect=lambda: connect(shared_valkey.url), direct=direct, scripts=load_scripts())


@pytest.fixture
def overheard(backend: Backend) -> Iterator[Overheard]:
    """Every wakeup on this Redis, also those that scripts publish."""
    overheard = Overheard(backend.direct)
    yield overheard
    overheard.close()


@pytest.fixture
async def redis(backend: Backend) -> AsyncIterator[Redis]:
    """A client as the services use it."""
    async with backend.connect() as client:
        yield client


@pytest.fixture
async def stores(redis: Redis, backend: Backend) -> AsyncIterator[Stores]:
    """The store; checks after the test that every name has a TTL or is permanent."""
    yield Stores(redis, backend)
    leaks.assert_every_name_goes(backend.direct)


@pytest.fixture
def clock(stores: Stores) -> RedisClock:
    """The time of scripts that run by its `calls_of`, from now on."""
    clock = RedisClock(stores.direct)
    clock.ahead_ms = 0
    return clock


@pytest.fixture
def elsewhere(redis: Redis, backend: Backend) -> Gateway:
    """A second gateway."""
    return Gateway(redis, backend)


@pytest.fixture
def fresh(redis: Redis, backend: Backend) -> Callable[[], Gateway]:
    """Makes gateways with an empty cache."""
    return lambda: Gateway(redis, backend)
