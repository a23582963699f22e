"""Every span and every metric by name: what is measured. Where it goes is decided in `runtime.exporters`.

Prometheus shows the dots as underscores and adds the unit: `notify.published` is `notify_published_total`.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span

_meter = metrics.get_meter("notification-gateway")
_tracer = trace.get_tracer("notification-gateway")

published = _meter.create_counter("notify.published", description="events taken by POST /v1/events")
repeatable = _meter.create_counter(
    "notify.repeatable", description="publish requests with an Idempotency-Key, by what was known of it"
)
queued = _meter.create_counter("notify.queued", description="notifications put into a channel's queue")
sent = _meter.create_counter("notify.sent", description="notifications written to a socket, by dialect")
expired = _meter.create_counter("notify.expired", description="channels that ended without a socket")
frames = _meter.create_counter("notify.frames", description="text frames written to a socket, by dialect")
settled = _meter.create_counter("notify.settled", description="notifications confirmed and forgotten")
dropped = _meter.create_counter("notify.dropped", description="notifications given up, by reason")
nudges = _meter.create_counter("notify.nudges", description="nudges sent, one for each replica and turn")
takeovers = _meter.create_counter("notify.takeovers", description="sockets that replaced another one")
handshakes = _meter.create_counter("notify.handshakes", description="WebSocket handshakes, by outcome")
polls_ended = _meter.create_counter("notify.polls.ended", description="long polls, by what came of them")
endings = _meter.create_counter("notify.endings", description="sockets that ended, by ending")
routes_read = _meter.create_counter("notify.routes.read", description="reads of routes: all, or changes")
requests = _meter.create_counter("notify.http.requests", description="HTTP requests, by method and status")
publish_s = _meter.create_histogram(
    "notify.publish", unit="s", description="from a publish request's body to Redis holding every copy"
)
confirm_s = _meter.create_histogram(
    "notify.confirm", unit="s", description="from a frame written to the pong that confirms it"
)
_callback_s = _meter.create_histogram(
    "notify.callback", unit="s", description="a call of a customer's URL, by outcome"
)
_redis_calls = _meter.create_counter("notify.redis.calls", description="Redis commands sent")
_redis_errors = _meter.create_counter("notify.redis.errors", description="Redis calls that failed, by error")
_redis_s = _meter.create_histogram("notify.redis.pipeline", unit="s", description="one pipeline to Redis")


class _RedisSeen:
    """Whether the last pipeline to Redis was answered."""

    up = True


def _redis_up(_: CallbackOptions) -> Iterable[Observation]:
    yield Observation(int(_RedisSeen.up))


_meter.create_observable_gauge("notify.redis.up", [_redis_up], description="1 while Redis answers")


def watch_sockets(count: Callable[[], int]) -> None:
    """Shows the number of sockets an edge holds, as of each scrape."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(count())

    _meter.create_observable_gauge("notify.sockets", [observe], description="sockets held now")


def watch_polls(count: Callable[[], int]) -> None:
    """Shows the number of long polls an edge holds, as of each scrape."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(count())

    _meter.create_observable_gauge("notify.polls", [observe], description="long polls held now")


@contextmanager
def redis_call(commands: int) -> Iterator[None]:
    """Counts and times one pipeline; tells whether Redis answers."""
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        _RedisSeen.up = False
        raise
    _RedisSeen.up = True
    _redis_calls.add(commands)
    _redis_s.record(time.perf_counter() - started)


def redis_failed(error: str) -> None:
    _redis_errors.add(1, {"error": error})


def dropped_from_queue(*, over: int, old: int) -> None:
    """Notifications that a queue gave up: as over its limit, as too old."""
    if over:
        dropped.add(over, {"reason": "queue-full"})
    if old:
        dropped.add(old, {"reason": "too-old"})


@contextmanager
def publish_span(account: str, events: int) -> Iterator[Span]:
    """`publish`: one request's events, from their reading to Redis holding every copy."""
    started = time.perf_counter()
    with _tracer.start_as_current_span("publish", attributes={"account": account, "events": events}) as span:
        yield span
    publish_s.record(time.perf_counter() - started)


@contextmanager
def claim_span(channel: str) -> Iterator[Span]:
    """`lease.claim`: a socket becomes the owner of its channel."""
    with _tracer.start_as_current_span("lease.claim", attributes={"channel": channel}) as span:
        yield span


@contextmanager
def drain_span(channel: str) -> Iterator[Span]:
    """`queue.drain`: one pass over a queue: settle, peek, deliver, until nothing is left to do."""
    with _tracer.start_as_current_span("queue.drain", attributes={"channel": channel}) as span:
        yield span


def request_answered(method: str, status: int) -> None:
    requests.add(1, {"method": method, "status": status})


def called(outcome: str, took_s: float) -> None:
    """A customer's URL was called."""
    _callback_s.record(took_s, {"outcome": outcome})
