"""Each test of the store runs on a real Valkey, which is flushed in between."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from shared.redis.client import connect
from shared.redis.pipeline import Argument, Pipeline
from shared.store.scripts import load_scripts
from tests.harness import leaks
from tests.harness.overheard import Overheard
from tests.harness.valkey import Valkey
from tests.store.routing import Gateway
from tests.store.stores import Backend, Stores


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for all tests of this worker that do not hurt it."""
    yield from _running_valkey()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own, to be killed."""
    yield from _running_valkey()


def _running_valkey() -> Iterator[Valkey]:
    # The path of a Unix socket must be short: pytest's own folders can be too deep.
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    server = Valkey(folder)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test does: no script is given keys of two slots, or a cluster would refuse it."""
    script = Pipeline.script

    def watched(calls: Pipeline, name: str, keys: Sequence[str], *arguments: Argument) -> Any:
        assert len({key_slot(key.encode()) for key in keys}) == 1, f"{name} is given {keys}"
        return script(calls, name, keys, *arguments)

    monkeypatch.setattr(Pipeline, "script", watched)


@pytest.fixture
def real_backend(shared_valkey: Valkey) -> Iterator[Backend]:
    """The real Valkey, empty."""
    with shared_valkey.client() as direct:
        direct.flushall()
        yield Backend(connect=lambda: connect(shared_valkey.url), direct=direct, scripts=load_scripts())


@pytest.fixture
def backend(real_backend: Backend) -> Backend:
    """The Redis that a test of the store runs on."""
    return real_backend


@pytest.fixture
def overheard(backend: Backend) -> Iterator[Overheard]:
    """Every wakeup that this Redis is told, or makes by itself."""
    overheard = Overheard(backend.direct)
    yield overheard
    overheard.close()


@pytest.fixture
async def redis(backend: Backend) -> AsyncIterator[Redis]:
    """A client as the engine has it."""
    async with backend.connect() as client:
        yield client


@pytest.fixture
async def stores(redis: Redis, backend: Backend) -> AsyncIterator[Stores]:
    """The store; after the test every name has a time to live or may stand for ever."""
    yield Stores(redis, backend)
    leaks.assert_every_name_goes(backend.direct)


@pytest.fixture
def elsewhere(redis: Redis, backend: Backend) -> Gateway:
    return Gateway(redis, backend)


@pytest.fixture
def fresh(redis: Redis, backend: Backend) -> Callable[[], Gateway]:
    """Makes gateways that know nothing yet."""
    return lambda: Gateway(redis, backend)
