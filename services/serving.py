"""How every service starts, serves and runs its workers: it waits for Redis, says so, and is then ready."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from socket import socket
from types import MappingProxyType

from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from services.composition import jobs_redis
from shared import telemetry
from shared.clock import PROCESS, TOLERANCE_NS
from shared.model.errors import StoreUnavailable
from shared.redis.pipeline import RedisCommands
from shared.redis.reminders import Reminders
from shared.redis.urls import shown
from shared.runtime.http.app import app_of
from shared.runtime.http.arrivals import Arrivals
from shared.runtime.http.cors import cross_origin
from shared.runtime.http.health import health_routes, metrics_server
from shared.runtime.http.hot_routes import HotRoutes
from shared.runtime.http.request_log import RequestLog
from shared.runtime.http.responses import refuse_handshake, unavailable
from shared.runtime.http.server import listener, serve
from shared.runtime.loops import end, in_background
from shared.runtime.settings import Settings
from shared.store.commands import on_lost, on_recovered, words_of
from shared.store.layout import check_layout
from shared.store.timekeeping import Timekeeper
from shared.version import REVISION, VERSION

logger = logging.getLogger(__name__)

_RESTART_S = 1.0
_REDIS_RETRY_S = 0.25
# A process whose Redis is there opens its port once.
_PROMPT_S = 0.25
_SILENCE_S = 0.75


async def has_our_layout(
    settings: Settings, commands: RedisCommands, *, port: int, stop: asyncio.Event
) -> bool:
    """Waits until Redis is there and has our data layout; False when `stop` was set before.

    Then the clock of this process shows Redis' time. Until then only `/livez` and `/readyz` are served on
    `port`, and everything else is a 503. Raises WrongLayout.
    """
    readiness = Readiness(stop)
    awaited = readiness.awaiting("Redis", redis=_where(settings))
    reaching = asyncio.create_task(_reach(commands, awaited))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((reaching, stopped), timeout=_PROMPT_S, return_when=asyncio.FIRST_COMPLETED)
        if not reaching.done():
            async with _serving_unready(settings, readiness, port=port):
                await asyncio.wait((reaching, stopped), return_when=asyncio.FIRST_COMPLETED)
        if reaching.done():
            await reaching
        return reaching.done()
    finally:
        await end(reaching, stopped)


async def _reach(commands: RedisCommands, awaited: "Awaited") -> None:
    """Returns once Redis has our layout. Raises WrongLayout."""
    while True:
        try:
            async with awaited.soon():
                await check_layout_and_time(commands)
        except StoreUnavailable as error:
            awaited.failed(words_of(error))
            await asyncio.sleep(_REDIS_RETRY_S)
        else:
            awaited.has_come()
            return


@contextlib.asynccontextmanager
async def _serving_unready(settings: Settings, readiness: "Readiness", *, port: int) -> AsyncIterator[None]:
    """Serves health and metrics of a process that waits for Redis."""
    left = asyncio.Event()
    async with metrics_server(settings.host, settings.metrics_port):
        # Never ready: this port is closed before the service opens it.
        health = health_routes(lambda: False, detail=readiness.detail, metrics_port=settings.metrics_port)
        app = app_of([*health, Mount("", app=_unavailable)])
        serving = asyncio.create_task(serve_app(app, listener(settings.host, port), settings, stop=left))
        try:
            yield
        finally:
            left.set()
            await serving


def _where(settings: Settings) -> str:
    return "embedded" if settings.redis_url is None else shown(settings.redis_url)


def log_start(service: str, settings: Settings, listening: socket) -> None:
    """The one line of a process that serves."""
    host, port = listening.getsockname()[:2]
    facts = {
        "service": service,
        "version": VERSION,
        **({"revision": REVISION} if REVISION else {}),
        "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "redis": _where(settings),
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
    app = RequestLog(cross_origin(app, origins=settings.allowed_origins))
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


class Awaited:
    """What a process needs of a Redis before it is ready. Until it comes `notify_redis_up` is 0.

    The log says once why it does not come, again for each other reason, and every half minute.
    """

    def __init__(self, what: str, facts: Mapping[str, str]) -> None:
        self.what = what
        self.why = ""
        self._facts = facts
        self._reminders = Reminders()
        telemetry.awaited_redis.add(self)

    @property
    def is_awaited(self) -> bool:
        return self in telemetry.awaited_redis

    def has_come(self) -> None:
        telemetry.awaited_redis.discard(self)

    def failed(self, why: str) -> None:
        """An attempt failed. Does nothing once it came."""
        if not self.is_awaited:
            return
        self.why = why
        if self._reminders.is_due(why):
            facts = {**self._facts, "why": why}
            logger.warning("redis.awaited", extra={"facts": facts})

    @contextlib.asynccontextmanager
    async def soon(self) -> AsyncIterator[None]:
        """Says so when what is done while entered takes long: a silent Redis lets a call wait for seconds."""
        timer = asyncio.get_running_loop().call_later(_SILENCE_S, self._say_silent)
        try:
            yield
        finally:
            timer.cancel()

    def _say_silent(self) -> None:
        # A reason that is known says more.
        if not self.why:
            self.failed("no reply yet")


class Readiness:
    """Is a process able to work? From when all that it awaits of its Redis has come, until it stops."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._awaited: list[Awaited] = []

    def __call__(self) -> bool:
        return not self._stop.is_set() and not any(each.is_awaited for each in self._awaited)

    def awaiting(self, what: str, **facts: str) -> Awaited:
        """Not ready before this has come."""
        self._awaited.append(Awaited(what, {"awaited": what, **facts}))
        return self._awaited[-1]

    def detail(self) -> str:
        """The lines of /readyz about this process: what it waits for, and how far its clock is off."""
        waits = [each for each in self._awaited if each.is_awaited]
        lines = [f"waits for {each.what}: {each.why or 'no reply yet'}\n" for each in waits]
        return "".join(lines) + clock_detail()


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
    app = app_of(health_routes(readiness, detail=readiness.detail, metrics_port=settings.metrics_port))
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

    A worker gets the function that it calls after each poll of its queue.
    """
    awaited = readiness.awaiting(f"jobs of {service}")
    reminders = Reminders()
    polls = telemetry.worker_polls.series({"worker": service})

    def on_working() -> None:
        polls.total += 1
        awaited.has_come()
        reminders.forget()
        on_recovered(awaited)

    async def work() -> None:
        try:
            async with awaited.soon():
                await make_worker(on_working).async_run()
        except (RedisError, OSError) as error:
            why = words_of(error)
            if awaited.is_awaited:
                awaited.failed(why)
            elif reminders.is_due(why):
                # A worker that cannot begin ends each second.
                logger.warning("worker.ended", extra={"facts": {"service": service, "why": why}})
            # A full Redis replies: NotifyRedisDown would send operators to its network.
            if not isinstance(error, OutOfMemoryError):
                on_lost(awaited, error)
        except Exception:
            logger.exception("worker.failed", extra={"facts": {"service": service}})
        await asyncio.sleep(_RESTART_S)

    return in_background(work)
