"""A replica that cannot use its Redis from the start says why, and is never ready: service by fault."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial

import aiohttp
import pytest

from tests.conftest import Start
from tests.faults.test_readiness import RIGHTS, SERVICES
from tests.harness.certificates import Certificates
from tests.harness.metrics import metric
from tests.harness.processes import Service, free_port
from tests.harness.stack import Stack
from tests.harness.tls import tls_fronts
from tests.harness.waiting import wait_until

PASSWORD = "letmein"
JOBS = {"webhook-dispatcher", "expiry-reaper"}
# What Valkey 9.1 sends to another machine while it has no password.
PROTECTED = (
    b"-DENIED Valkey is running in protected mode because protected mode is enabled and no password is set "
    b"for the default user. In this mode connections are only accepted from the loopback interface. If you "
    b"want to connect from external computers, you may adopt one of the following solutions: 1) Just "
    b"disable protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface "
    b"by connecting from the same host the server is running, however MAKE SURE it's not publicly "
    b"accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent.\r\n"
)


class Imposter:
    """Accepts connections, sends one thing, and then closes them or stays silent."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._greeting:
            writer.write(self._greeting)
        else:
            with contextlib.suppress(OSError):
                while await reader.read(1 << 16):
                    pass
        writer.close()


@contextlib.asynccontextmanager
async def imposter(greeting: bytes) -> AsyncIterator[tuple[Imposter, int]]:
    server = Imposter(greeting)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        yield server, int(listening.sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def refused_login(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    allow(stack, "on", ">another", *RIGHTS)
    yield login_to(stack)


@contextlib.asynccontextmanager
async def no_password(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    with stack.valkey.client() as direct:
        direct.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
        yield f"redis://127.0.0.1:{stack.valkey.port}/0"
        direct.execute_command("ACL", "SETUSER", "default", "nopass")


@contextlib.asynccontextmanager
async def no_rights(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    allow(stack, "on", f">{PASSWORD}", "-@all", "~*", "&*")
    yield login_to(stack)


@contextlib.asynccontextmanager
async def no_keys(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    allow(stack, "on", f">{PASSWORD}", "+@all", "&*")
    yield login_to(stack)


@contextlib.asynccontextmanager
async def unreachable(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    yield f"redis://app:{PASSWORD}@127.0.0.1:{free_port()}/0"


@contextlib.asynccontextmanager
async def unknown_host(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    yield f"redis://app:{PASSWORD}@redis.invalid:6379/0"


@contextlib.asynccontextmanager
async def silent(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    async with imposter(b"") as (_server, port):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.asynccontextmanager
async def protected_mode(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    async with imposter(PROTECTED) as (_server, port):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.asynccontextmanager
async def not_redis(stack: Stack, _: Certificates) -> AsyncIterator[str]:
    async with imposter(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (_server, port):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.asynccontextmanager
async def tls_to_plain(stack: Stack, certificates: Certificates) -> AsyncIterator[str]:
    allow(stack, "on", f">{PASSWORD}", *RIGHTS)
    yield login_to(stack).replace("redis://", "rediss://")


@contextlib.asynccontextmanager
async def plain_to_tls(stack: Stack, certificates: Certificates) -> AsyncIterator[str]:
    async with tls_fronts(certificates, stack.valkey.port) as [front]:
        yield f"redis://app:{PASSWORD}@127.0.0.1:{front.port}/0"


@contextlib.asynccontextmanager
async def strange_certificate(stack: Stack, certificates: Certificates) -> AsyncIterator[str]:
    trusted = f"?ssl_ca_certs={certificates.pem('stranger')}"
    async with tls_fronts(certificates, stack.valkey.port) as [front]:
        yield f"rediss://app:{PASSWORD}@127.0.0.1:{front.port}/0{trusted}"


@dataclass(frozen=True, slots=True)
class Fault:
    """`why` finds a part of the reason: the server's own words where it says any."""

    make: Callable[[Stack, Certificates], AbstractAsyncContextManager[str]]
    why: str


FAULTS = {
    "wrong password": Fault(refused_login, "AuthenticationError: invalid username-password pair"),
    "no password": Fault(no_password, "AuthenticationError: Authentication required"),
    "no rights": Fault(no_rights, "NoPermissionError: User app has no permissions to run the '"),
    "no keys": Fault(no_keys, "NoPermissionError: "),
    "unreachable": Fault(unreachable, r"ConnectionError: .*Connect"),
    "unknown host": Fault(unknown_host, "ConnectionError: "),
    "silent": Fault(silent, "no reply yet|no reply within the timeout|Timeout reading"),
    "protected mode": Fault(protected_mode, "DENIED Valkey is running in protected mode because"),
    "not Redis": Fault(not_redis, "Protocol|the connection was closed"),
    "TLS to a plain port": Fault(tls_to_plain, "TimeoutError: (no connection .*TLS|Timeout connecting)"),
    "plain to a TLS port": Fault(plain_to_tls, "ConnectionError: "),
    "strange certificate": Fault(strange_certificate, "certificate verify failed"),
}


def allow(stack: Stack, *rules: str) -> None:
    with stack.valkey.client() as direct:
        direct.execute_command("ACL", "SETUSER", "app", "reset", *rules)


def login_to(stack: Stack) -> str:
    return f"redis://app:{PASSWORD}@127.0.0.1:{stack.valkey.port}/0"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("stranger")
    made.make("server", by="authority")
    return made


@pytest.fixture
def stack(start: Start) -> Stack:
    return start(gateways=0, edges=0, tcp=True)


def is_live(service: Service) -> bool:
    return service.get("/livez") == 200


@contextlib.asynccontextmanager
async def started(stack: Stack, kinds: set[str], **settings: object) -> AsyncIterator[dict[str, Service]]:
    """Services that are live."""
    services = {kind: SERVICES[kind](stack, f"{kind}-awaiting", **settings) for kind in sorted(kinds)}
    async with AsyncExitStack() as running:
        for service in services.values():
            running.callback(service.close)
            service.start()
        for service in services.values():
            await wait_until(partial(is_live, service), within_s=60, what=service.name)
        yield services


async def assert_says_why(http: aiohttp.ClientSession, service: Service, awaited: str, why: str) -> None:
    """In the log and on /readyz, and by the gauge."""

    def line() -> str:
        lines = [each for each in service.stderr.splitlines() if "WARNING redis.awaited" in each]
        return next((each for each in lines if re.search(why, each) and awaited in each), "")

    await wait_until(line, within_s=30, what=lambda: service.tail)
    async with http.get(f"{service.url}/readyz") as response:
        assert response.status == 503
        text = await response.text()
    assert f"waits for {awaited}: " in text, text
    assert re.search(why, text), text
    assert await metric(http, service.url, "notify_redis_up") == 0
    assert PASSWORD not in service.stderr + service.stdout + text


def lines_about(service: Service, why: str) -> int:
    return sum("redis.awaited" in line and why in line for line in service.stderr.splitlines())


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_every_service_says_why_it_is_not_ready(
    stack: Stack, certificates: Certificates, http: aiohttp.ClientSession, fault: Fault
) -> None:
    async with (
        fault.make(stack, certificates) as url,
        started(stack, set(SERVICES), REDIS_URL=url) as services,
    ):
        for service in services.values():
            await assert_says_why(http, service, "Redis", fault.why)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_every_worker_says_why_it_has_no_jobs(
    stack: Stack, certificates: Certificates, http: aiohttp.ClientSession, fault: Fault
) -> None:
    if fault.make is no_password:
        pytest.skip("the state is on the same server, and would be refused first")
    async with (
        fault.make(stack, certificates) as url,
        started(stack, JOBS, JOBS_REDIS_URL=url) as services,
    ):
        for kind, service in services.items():
            await assert_says_why(http, service, f"jobs of {kind}", fault.why)


@pytest.mark.parametrize("setting", ["REDIS_URL", "JOBS_REDIS_URL"])
async def test_a_reason_is_logged_once_however_often_it_is_met(stack: Stack, setting: str) -> None:
    kinds = JOBS if setting == "JOBS_REDIS_URL" else set(SERVICES)
    async with (
        imposter(PROTECTED) as (server, port),
        started(stack, kinds, **{setting: f"redis://127.0.0.1:{port}/0"}) as services,
    ):
        await wait_until(lambda: server.connections >= 4 * len(services), within_s=60)
        for service in services.values():
            assert lines_about(service, "DENIED") == 1, service.tail


@pytest.mark.parametrize(
    ("kind", "missing", "awaited", "logged"),
    [
        ("socket-edge", "-subscribe", "the subscription of the edge", "subscription.refused"),
        ("webhook-dispatcher", "-subscribe", "the subscription of the dispatcher", "subscription.refused"),
        ("socket-edge", "-zadd", "the heartbeat of the edge", "redis.awaited"),
        ("webhook-dispatcher", "-zadd", "the heartbeat of the dispatcher", "redis.awaited"),
        ("webhook-dispatcher", "-zcard", "jobs of webhook-dispatcher", "redis.awaited"),
        ("expiry-reaper", "-zcard", "jobs of expiry-reaper", "redis.awaited"),
        *((kind, "-evalsha", "Redis", "redis.awaited") for kind in SERVICES),
    ],
)
async def test_one_right_too_few_is_named_and_waited_for(
    stack: Stack, http: aiohttp.ClientSession, kind: str, missing: str, awaited: str, logged: str
) -> None:
    rights = ("on", f">{PASSWORD}", *RIGHTS)
    allow(stack, *rights, missing)
    async with started(stack, {kind}, REDIS_URL=login_to(stack), HEARTBEAT_S=1) as services:
        service = services[kind]

        def line() -> str:
            lines = [each for each in service.stderr.splitlines() if logged in each]
            return next((each for each in lines if f"'{missing[1:]}'" in each), "")

        await wait_until(line, within_s=30, what=lambda: service.tail)
        async with http.get(f"{service.url}/readyz") as response:
            assert (response.status, f"waits for {awaited}: " in await response.text()) == (503, True)
        assert await metric(http, service.url, "notify_redis_up") == 0

        allow(stack, *rights)
        await wait_until(lambda: service.ready, within_s=60, what=lambda: service.tail)
        await wait_until(lambda: metric_is_up(http, service), within_s=30)


async def metric_is_up(http: aiohttp.ClientSession, service: Service) -> bool:
    return await metric(http, service.url, "notify_redis_up") == 1
