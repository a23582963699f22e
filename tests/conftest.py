"""Shared fixtures. The stories share one installation per worker; failure reports show processes' output."""

import gc
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import aiohttp
import fakeredis
import pytest
from hypothesis import settings

from tests.harness import leaks, processes
from tests.harness.api import Api, ApiKey
from tests.harness.callbacks import Hook, running_hook
from tests.harness.cluster import Cluster
from tests.harness.processes import RUNNING
from tests.harness.raw import SilentSocket
from tests.harness.rights import Restricted
from tests.harness.sentinel import Guarded
from tests.harness.sockets import Receiver
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import block_until
from tests.store.stores import Stores, fake_backend


class Listen(Protocol):
    """Opens a receiving socket on an edge and closes it at the end of the test."""

    async def __call__(self, key: ApiKey, url: str | None = None, **options: Any) -> Receiver: ...


class ListenSilently(Protocol):
    """Opens a socket that sends no pongs and close frames by itself."""

    async def __call__(
        self, key: ApiKey, url: str, headers: dict[str, str] | None = None
    ) -> SilentSocket: ...


class Measured(Protocol):
    """pytest's `record_property`; the values are printed at the end of the run."""

    def __call__(self, name: str, value: object) -> None: ...


class Start(Protocol):
    """Starts an installation for one test: `start(edges=2, HEARTBEAT_S=1)`."""

    def __call__(self, **options: Any) -> Stack: ...


_REDIS_LIKE: dict[str, RedisLike | None] = {
    "one": None,
    "cluster": Cluster,
    "sentinel": Guarded,
    "rights": Restricted,
}


processes.forks_services = True
# A busy machine may take long for an example.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis", choices=[*_REDIS_LIKE], default="one", help="the Redis that the stories run on"
    )


@pytest.fixture(scope="session")
def redis_like(pytestconfig: pytest.Config) -> RedisLike | None:
    """The Redis that the stories run on; None: a single Valkey."""
    return _REDIS_LIKE[str(pytestconfig.getoption("redis"))]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Some million objects stay until the end: the collector need not look at them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the output of all processes to a failure report."""
    report = yield
    if report.failed:
        report.sections.extend((f"output of {process.name}", process.tail) for process in RUNNING)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the values that tests have measured."""
    reports = [report for report in terminalreporter.stats.get("passed", ()) if report.user_properties]
    for report in reports:
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def shared_stack(redis_like: RedisLike | None) -> Iterator[Stack]:
    """Valkey over TCP, two gateways, two edges. The fault tests use Unix sockets."""
    with running_stack(
        gateways=2,
        edges=2,
        tcp=True,
        redis_like=redis_like,
        ALLOW_PRIVATE_CALLBACKS=1,
        # All stories come from one address, and many are about wrong secrets.
        FAILED_AUTHENTICATION_BURST_PER_ADDRESS=100_000,
        FAILED_AUTHENTICATION_RATE=100_000,
    ) as stack:
        yield stack
        leaks.assert_none_in_metrics(stack.services)
        leaks.assert_none_in_answers()
        with stack.redis.client() as redis:
            leaks.assert_none_in_redis(redis)
            leaks.assert_records_stay(redis)


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The shared installation.

    Fails the test if it leaves a permanent key in Redis, or if a byte is left of its accounts when these are
    deleted.
    """
    yield shared_stack
    gateway = shared_stack.gateways[0]
    with shared_stack.redis.client() as redis:
        leaks.assert_every_name_goes(redis)
        leaks.delete_every_account(redis, gateway_url=gateway.url, admin_token=shared_stack.admin_token)
        # An edge drops the session of a socket after the socket has closed.
        block_until(
            lambda: not leaks.bytes_left(redis),
            what=lambda: f"nothing left of deleted accounts: {leaks.bytes_left(redis)}",
        )


@pytest.fixture
def server() -> fakeredis.FakeServer:
    """A fake Redis, for tests of logic elsewhere."""
    return fakeredis.FakeServer()


@pytest.fixture
async def stores(server: fakeredis.FakeServer) -> AsyncIterator[Stores]:
    """Stores on the fake Redis."""
    backend = fake_backend(server)
    async with backend.connect() as redis:
        yield Stores(redis, backend)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A stock HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest.fixture
def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    """The shared installation's first gateway."""
    return Api(http, stack.gateways[0].url, stack.admin_token)


@pytest.fixture
def other_api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    """The shared installation's second gateway."""
    return Api(http, stack.gateways[1].url, stack.admin_token)


@pytest.fixture
async def key(api: Api) -> ApiKey:
    """An API key with the scopes publish and receive, in a new account."""
    return await api.api_key()


@pytest.fixture
async def channel(api: Api, key: ApiKey) -> ApiKey:
    """The same API key with a registered WebSocket channel."""
    await api.register(key)
    return key


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A receiver of callbacks."""
    async with running_hook() as receiver:
        yield receiver


@pytest.fixture
async def listen(request: pytest.FixtureRequest) -> AsyncIterator[Listen]:
    """Opens sockets, by default on the first edge of the shared installation."""
    opened: list[Receiver] = []

    async def open_socket(key: ApiKey, url: str | None = None, **options: Any) -> Receiver:
        if url is None:
            url = request.getfixturevalue("stack").edges[0].url
        opened.append(await Receiver.open(url, key, **options))
        return opened[-1]

    yield open_socket
    for receiver in opened:
        await receiver.drop()


@pytest.fixture
async def listen_silently() -> AsyncIterator[ListenSilently]:
    """Opens sockets that send no pongs and close frames by themselves."""
    opened: list[SilentSocket] = []

    async def open_socket(key: ApiKey, url: str, headers: dict[str, str] | None = None) -> SilentSocket:
        bearer = {"Authorization": f"Bearer {key.secret}"}
        opened.append(await SilentSocket.open(url, bearer if headers is None else headers))
        return opened[-1]

    yield open_socket
    for client in opened:
        await client.close()


@pytest.fixture
def start(redis_like: RedisLike | None) -> Iterator[Start]:
    """Starts installations and ends them with the test."""
    with ExitStack() as running:

        def begin(**options: Any) -> Stack:
            installation: AbstractContextManager[Stack] = running_stack(
                **{"redis_like": redis_like, **options}
            )
            return running.enter_context(installation)

        yield begin
