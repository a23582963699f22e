"""A replica is ready when it can work, and its log says with which Redis, or why not."""

from collections.abc import Iterator

import aiohttp
import pytest

from shared.version import VERSION
from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

SERVICES = {
    "gateway": Stack.new_gateway,
    "socket-edge": Stack.new_edge,
    "webhook-dispatcher": Stack.new_dispatcher,
    "expiry-reaper": Stack.new_reaper,
}
# What managed Redis offers give their customers.
RIGHTS = ("~*", "&*", "+@all", "-@dangerous", "-@admin")


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(edges=1, tcp=True)


@pytest.fixture(params=SERVICES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(stack: Stack, kind: str) -> Iterator[Service]:
    """A service that logs in as the user `app`, who does not exist yet."""
    made = SERVICES[kind](stack, f"{kind}-app", REDIS_URL=url_of(stack), HEARTBEAT_S=1)
    try:
        yield made
    finally:
        made.close()


def url_of(stack: Stack) -> str:
    return f"redis://app:letmein@127.0.0.1:{stack.valkey.port}/0"


def allow(stack: Stack, *, password: str = "letmein", rights: tuple[str, ...] = RIGHTS) -> None:
    with stack.valkey.client() as direct:
        direct.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{password}", *rights)


async def test_a_service_is_ready_once_redis_lets_it_in(
    service: Service, kind: str, stack: Stack, http: aiohttp.ClientSession
) -> None:
    allow(stack, password="another")
    service.start()

    awaited = f'redis.awaited awaited=Redis redis=127.0.0.1:{stack.valkey.port} why="AuthenticationError: '
    await wait_until(lambda: awaited in service.stderr, what=lambda: service.tail)
    await wait_until(lambda: service.get("/livez") == 200)
    assert service.get("/readyz") == 503
    assert await redis_up(http, service) == 0

    allow(stack)
    await wait_until(lambda: service.ready, within_s=60, what=lambda: service.tail)
    assert await redis_up(http, service) == 1
    started = (
        f"INFO service.started service={kind} version={VERSION} address=127.0.0.1:{service.port} "
        f"redis=127.0.0.1:{stack.valkey.port}\n"
    )
    assert started in service.stderr
    assert "letmein" not in service.stderr


async def test_a_ready_service_that_loses_redis_stays_ready_and_says_so(
    service: Service, stack: Stack
) -> None:
    allow(stack)
    service.start()
    await wait_until(lambda: service.ready, within_s=60, what=lambda: service.tail)

    stack.valkey.kill()
    await wait_until(lambda: "WARNING redis.lost why=" in service.stderr, what=lambda: service.tail)
    assert service.ready

    stack.valkey.start()
    stack.valkey.wait_ready()
    allow(stack)
    await wait_until(lambda: "INFO redis.recovered" in service.stderr, what=lambda: service.tail)
    assert service.stderr.count("redis.lost") == service.stderr.count("redis.recovered")


async def test_a_worker_without_rights_on_its_jobs_is_not_ready(stack: Stack) -> None:
    allow(stack, rights=(*RIGHTS, "-zcard"))
    reaper = stack.new_reaper("reaper-without-rights", REDIS_URL=url_of(stack))
    try:
        reaper.start()
        await wait_until(lambda: "redis.awaited" in reaper.stderr, what=lambda: reaper.tail)
        assert 'why="NoPermissionError: ' in reaper.stderr
        assert reaper.get("/readyz") == 503
        allow(stack)
        await wait_until(lambda: reaper.ready, within_s=60, what=lambda: reaper.tail)
    finally:
        reaper.close()


async def test_expiry_works_with_the_rights_of_a_managed_redis(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    allow(stack)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register(key)
    reaper = stack.new_reaper("reaper-managed", REDIS_URL=url_of(stack), WEBSOCKET_EXPIRY_S=1)
    try:
        reaper.start()
        reaper.wait_ready()

        async def is_gone() -> bool:
            path = "/v2/notification/websocket"
            return (await api.call("GET", path, token=key.secret)).status == 404

        await wait_until(is_gone, within_s=60, what=lambda: reaper.tail)
    finally:
        reaper.close()


async def redis_up(http: aiohttp.ClientSession, service: Service) -> float:
    async with http.get(f"{service.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return float(next(line for line in lines if line.startswith("notify_redis_up")).rpartition(" ")[2])
