"""Commands to a primary behind sentinels: each connection asks for its address."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio.sentinel import SentinelConnectionPool

from shared.model.errors import StoreUnavailable
from shared.redis.client import connect
from shared.store.commands import commands_to
from shared.store.keyspace import wakeup
from tests.harness.processes import free_port
from tests.harness.sentinel import SERVICE, Guarded
from tests.harness.valkey import Valkey, running_valkey
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE
from tests.store.test_wakeups import Subscription, listening

PASSWORD = "Zq7xWvKj"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    yield from _running()


@pytest.fixture
def successor() -> Iterator[Valkey]:
    """Another primary, which no sentinel knows."""
    with running_valkey(name="successor", tcp=True) as server:
        yield server


@pytest.fixture
def failing_over() -> Iterator[Guarded]:
    yield from _running()


def _running() -> Iterator[Guarded]:
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    guarded = Guarded(folder, password=PASSWORD)
    try:
        guarded.start()
        guarded.wait_ready()
        yield guarded
    finally:
        guarded.close()
        shutil.rmtree(folder, ignore_errors=True)


def url(guarded: Guarded, *, sentinels: str = "", service: str = SERVICE, password: str = PASSWORD) -> str:
    servers = sentinels or f"127.0.0.1:{guarded.sentinel.port}"
    return f"redis+sentinel://{servers}/{service}/0?sentinel_password={password}"


async def test_the_first_reachable_sentinel_names_the_primary(guarded: Guarded) -> None:
    both = f"127.0.0.1:{free_port()},127.0.0.1:{guarded.sentinel.port}"
    async with connect(url(guarded, sentinels=both)) as redis:
        assert await commands_to(redis).command("SET", "a", "1") == b"OK"
        with guarded.client() as direct:
            assert direct.get("a") == b"1"


@pytest.mark.parametrize("wrong", ["service", "password", "sentinels"])
async def test_no_primary_is_store_unavailable(guarded: Guarded, wrong: str) -> None:
    urls = {
        "service": url(guarded, service="another"),
        "password": url(guarded, password="another"),
        # A Valkey, which is no sentinel.
        "sentinels": url(guarded, sentinels=f"127.0.0.1:{guarded.primary.port}"),
    }
    async with connect(urls[wrong]) as redis:
        with pytest.raises(StoreUnavailable):
            await commands_to(redis).command("GET", "a")


async def test_a_server_that_is_no_primary_is_refused(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(url(guarded)) as redis:

        async def outdated(_: SentinelConnectionPool) -> tuple[str, int]:
            return "127.0.0.1", guarded.replica.port

        with monkeypatch.context() as patched:
            patched.setattr(SentinelConnectionPool, "get_master_address", outdated)
            with pytest.raises(StoreUnavailable) as refused:
                await commands_to(redis).command("GET", "a")
        assert "not the primary" in str(refused.value.__cause__)
        await commands_to(redis).command("GET", "a")


async def test_it_leaves_a_demoted_primary_that_still_replies(
    guarded: Guarded, successor: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demoted server learns of it seconds later than the clients."""
    async with connect(url(guarded)) as redis, listening(redis, EDGE) as heard:
        commands = commands_to(redis)
        await commands.command("SET", "a", "before")

        async def failed_over(pool: SentinelConnectionPool) -> tuple[str, int]:
            pool.master_address = ("127.0.0.1", successor.port)
            return pool.master_address

        monkeypatch.setattr(SentinelConnectionPool, "get_master_address", failed_over)

        async def reaches_the_successor() -> bool:
            with contextlib.suppress(StoreUnavailable):
                await commands.command("SET", "a", "after")
            with successor.client() as direct:
                return bool(direct.get("a") == b"after")

        await wait_until(reaches_the_successor)
        await wait_until(lambda: Subscription.LOST in heard.all)
        with successor.client() as direct:
            await wait_until(lambda: direct.publish(wakeup(EDGE), "a") == 1)
        await wait_until(lambda: ["a"] in heard.all)


@pytest.mark.long
async def test_it_follows_a_failover(failing_over: Guarded) -> None:
    """An operator asks for it. Redis loses what the old primary accepts until it learns of it."""
    guarded = failing_over
    async with connect(url(guarded)) as redis:
        commands = commands_to(redis)
        await commands.command("SET", "a", "before")
        before = guarded.sentinel.primary_port
        guarded.sentinel.ask("SENTINEL", "FAILOVER", SERVICE)
        await wait_until(lambda: guarded.sentinel.primary_port != before)

        async def reaches_the_new_primary() -> bool:
            try:
                await commands.command("SET", "a", "after")
            except StoreUnavailable:
                return False
            with guarded.client() as direct:
                return bool(direct.get("a") == b"after")

        await wait_until(reaches_the_new_primary)
