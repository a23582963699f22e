"""How every service starts, serves and runs its workers: it waits for Redis, says so, and is then ready."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from socket import socket
from types import MappingProxyType

from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from services.composition import jobs_redis
from shared import telemetry
from shared.clock import PROCESS, TOLERANCE_NS
from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands
from shared.redis.urls import shown
from shared.runtime.http.app import app_of
from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.hot_routes import HotRoutes
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.responses import refuse_handshake, unavailable
from shared.runtime.http.server import listener, serve
from shared.runtime.loops import in_background
from shared.runtime.settings import Settings
from shared.store.commands import words_of
from shared.store.layout import check_layout
from shared.store.timekeeping import Timekeeper
from shared.version import REVISION, VERSION

logger = logging.getLogger(__name__)

_RESTART_S = 1.0
_REDIS_RETRY_S = 0.25
# The same reason again, for whoever reads only the end of a log.
_REDIS_REMINDER_S = 30.0


async def has_our_layout(
    settings: Settings, commands: RedisCommands, *, port: int, stop: asyncio.Event
) -> bool:
    """Waits until Redis is there and has our data layout; False when `stop` was set before.

    Then the clock of this process shows Redis' time. Until then only `/livez` is served on `port`, and
    everything else is a 503. Raises WrongLayout.
    """
    awaited = _Awaited(settings.redis_url)
    if await awaited.has_come(commands):
        return True
    ready = asyncio.Event()
    async with metrics_server(settings.host, settings.metrics_port):
        app = app_of(
            [
                *health_routes(lambda: False, detail=clock_detail, metrics_port=settings.metrics_port),
                Mount("", app=_unavailable),
            ]
        )
        serving = asyncio.create_task(serve_app(app, listener(settings.host, port), settings, stop=ready))
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _REDIS_RETRY_S)
                    return False
                if await awaited.has_come(commands):
                    return True
        finally:
            ready.set()
            await serving


class _Awaited:
    """A Redis that has not replied yet: `notify_redis_up` is 0, and the log says why."""

    def __init__(self, url: str | None) -> None:
        self._where = "embedded" if url is None else shown(url)
        self._why = ""
        self._logged_s = 0.0

    async def has_come(self, commands: RedisCommands) -> bool:
        """Has it our data layout? Raises WrongLayout."""
        try:
            await check_layout_and_time(commands)
        except StoreUnavailable as error:
            telemetry.lost_redis.add(self)
            self._log(words_of(error))
            return False
        telemetry.lost_redis.discard(self)
        return True

    def _log(self, why: str) -> None:
        now_s = time.monotonic()
        if why != self._why or now_s - self._logged_s >= _REDIS_REMINDER_S:
            self._why, self._logged_s = why, now_s
            logger.warning("redis.awaited", extra={"facts": {"redis": self._where, "why": why}})


def log_start(service: str, settings: Settings, listening: socket) -> None:
    """The one line of a process that serves."""
    host, port = listening.getsockname()[:2]
    facts = {
        "service": service,
        "version": VERSION,
        **({"revision": REVISION} if REVISION else {}),
        "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "redis": "embedded" if settings.redis_url is None else shown(settings.redis_url),
    }
    logger.info("service.started", extra={"facts": facts})


async def check_layout_and_time(commands: RedisCommands) -> None:
    """What precedes every other use of Redis. Raises WrongLayout, StoreUnavailable."""
    await check_layout(commands)
    await Timekeeper(commands).measure()


def keeping_time(commands: RedisCommands) -> AbstractAsyncContextManager[None]:
    """Keeps the clock of this process at Redis' time while entered."""
    return in_background(Timekeeper(commands).keep)


def clock_detail() -> str:
    """A line for /readyz when this machine's clock and Redis' differ by over a second, else nothing.

    The process stays ready: what it judges, it judges by Redis' time.
    """
    ahead_ns = PROCESS.ahead_ns()
    if ahead_ns is None or abs(ahead_ns) <= TOLERANCE_NS:
        return ""
    direction = "ahead of" if ahead_ns > 0 else "behind"
    return f"the clock of this machine is {abs(ahead_ns) / 1e9:.1f} s {direction} Redis'\n"


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "websocket":
        raise unavailable()
    await receive()
    await refuse_handshake(scope, send, unavailable())


async def serve_app(
    app: ASGIApp,
    listening: socket,
    settings: Settings,
    *,
    stop: asyncio.Event,
    on_shutdown: Callable[[], Awaitable[None]] | None = None,
    on_start: Callable[[], None] = lambda: None,
    hot_routes: HotRoutes = MappingProxyType({}),
) -> None:
    """Serves the app until `stop`, behind CORS and the request log; hot routes do without."""
    app = RequestLog(cross_origin(app, origins=settings.cors_origins))
    arrivals = Arrivals(
        most=settings.max_arriving_connections,
        most_per_address=settings.max_arriving_connections_per_address,
        trusted=settings.trusted_proxies,
    )
    await serve(
        app,
        listening,
        stop=stop,
        arrivals=arrivals,
        on_shutdown=on_shutdown,
        on_start=on_start,
        hot_routes=hot_routes,
    )


class Readiness:
    """Is a process able to work? From when each of its workers has once reached its Redis, until it stops."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._awaited: set[str] = set()

    def __call__(self) -> bool:
        return not self._stop.is_set() and not self._awaited

    def await_worker(self, service: str) -> Callable[[], None]:
        """Not ready until the returned function is called."""
        self._awaited.add(service)
        return partial(self._awaited.discard, service)


async def serve_jobs(
    service: str,
    work: Callable[[Settings, Redis, Redis, Readiness], AbstractAsyncContextManager[None]],
    settings: Settings,
    redis: Redis,
    *,
    port: int,
    stop: asyncio.Event,
) -> None:
    """Runs a service of jobs until `stop`; health and metrics are on `port`."""
    listening = listener(settings.host, port)
    readiness = Readiness(stop)
    app = app_of(health_routes(readiness, detail=clock_detail, metrics_port=settings.metrics_port))
    async with (
        metrics_server(settings.host, settings.metrics_port),
        jobs_redis(settings, redis) as jobs,
        work(settings, redis, jobs, readiness),
    ):
        await serve_app(
            app, listening, settings, stop=stop, on_start=partial(log_start, service, settings, listening)
        )


def working(
    make_worker: Callable[[Callable[[], None]], Worker], *, service: str, readiness: Readiness
) -> AbstractAsyncContextManager[None]:
    """Runs an arq worker while entered, and another one whenever it ends: it does when Redis drops.

    A worker gets the function that it calls once it works.
    """
    on_working, why = readiness.await_worker(service), ""

    async def work() -> None:
        nonlocal why
        try:
            await make_worker(on_working).async_run()
        except (RedisError, OSError) as error:
            # A worker that cannot begin ends each second.
            if why != (why := words_of(error)):
                logger.warning("worker.ended", extra={"facts": {"service": service, "why": why}})
        except Exception:
            logger.exception("worker.failed", extra={"facts": {"service": service}})
        await asyncio.sleep(_RESTART_S)

    return in_background(work)
