"""Every span and every metric by name: what is measured. Where it goes is decided in `runtime.exporters`.

Prometheus shows the dots as underscores and adds the unit: `notify.published` is `notify_published_total`.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_meter = metrics.get_meter("notification-gateway")
_tracer = trace.get_tracer("notification-gateway")

Labels = Mapping[str, str | int]
_Values = tuple[tuple[str, str | int], ...]
_NO_LABELS: Labels = MappingProxyType({})

BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 1800.0, 7200.0, 43_200.0),
)
"""The buckets of every distribution: from a call to Redis to a notification that waited for half a day."""


class Count:
    """A counter that costs its callers next to nothing: it is read when somebody fetches the metrics.

    The SDK's own takes tens of microseconds for each addition, and several belong to a notification.
    """

    def __init__(self) -> None:
        self._sums: dict[_Values, int] = {}

    def add(self, amount: int, attributes: Labels = _NO_LABELS) -> None:
        labels = tuple(attributes.items())
        self._sums[labels] = self._sums.get(labels, 0) + amount

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(labels)) for labels, value in self._sums.items()]


@dataclass(slots=True)
class Spread:
    """How often what was recorded fell into each bucket, the last without a bound, and its sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0


class Distribution:
    """A histogram of seconds, as cheap as `Count`: `runtime.exporters` reads it when metrics are fetched.

    OpenTelemetry has no histogram that is read like that, only one that is told of each value.
    """

    def __init__(self, name: str, *, description: str) -> None:
        self.name = name
        self.description = description
        self.spreads: dict[_Values, Spread] = {}

    def record(self, took_s: float, attributes: Labels = _NO_LABELS, *, times: int = 1) -> None:
        labels = tuple(attributes.items())
        spread = self.spreads.get(labels)
        if spread is None:
            spread = self.spreads[labels] = Spread()
        spread.counts[bisect_left(BOUNDS_S, took_s)] += times
        spread.sum_s += took_s * times


class Ages:
    """Ages that somebody looks for now and then; they are shown until the next look is long overdue."""

    def __init__(self, name: str, *, description: str) -> None:
        self._ages: list[Observation] = []
        self._good_until_s = 0.0
        _meter.create_observable_gauge(name, [self._observe], unit="s", description=description)

    def found(self, ages: Iterable[tuple[float, Labels]], *, good_for_s: float) -> None:
        """What a look has found. A clock ahead of ours is no reason for an age below nothing."""
        self._ages = [Observation(max(0.0, age_s), dict(labels)) for age_s, labels in ages]
        self._good_until_s = time.monotonic() + good_for_s

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return self._ages if time.monotonic() < self._good_until_s else ()


distributions: list[Distribution] = []
"""Every one there is."""


def _distributed(name: str, *, description: str) -> Distribution:
    distributions.append(Distribution(name, description=description))
    return distributions[-1]


def _counted(name: str, *, description: str) -> Count:
    count = Count()
    _meter.create_observable_counter(name, [count.observe], description=description)
    return count


published = _counted("notify.published", description="events taken by POST /v1/events")
repeatable = _counted(
    "notify.idempotent.requests",
    description="publish requests with an Idempotency-Key, by what was known of it",
)
queued = _counted("notify.queued", description="notifications put into a channel's queue")
sent = _counted("notify.sent", description="notifications written to a socket, by dialect")
expired = _counted("notify.channels.expired", description="channels that ended without a socket")
frames = _counted("notify.frames", description="text frames written to a socket, by dialect")
acked = _counted("notify.acked", description="notifications confirmed and forgotten")
dropped = _counted("notify.dropped", description="notifications given up, by reason")
wakeups = _counted("notify.wakeups", description="wakeups sent beside those that an append makes by itself")
takeovers = _counted("notify.takeovers", description="sockets that replaced another one")
handshakes = _counted("notify.handshakes", description="WebSocket handshakes, by outcome")
polls_ended = _counted("notify.polls.closed", description="long polls, by what came of them")
sockets_closed = _counted("notify.sockets.closed", description="sockets that ended, by ending")
routing_reads = _counted("notify.routing_table.reads", description="reads of routes: all, or changes")
requests = _counted("notify.http.requests", description="HTTP requests, by method and status")
publish_s = _distributed(
    "notify.publish", description="from a publish request's body to Redis holding every copy"
)
client_ack_s = _distributed(
    "notify.client_ack", description="from a frame written to the pong that confirms it"
)
_delivery_s = _distributed(
    "notify.delivery",
    description="from a notification's place in a queue to its acking, by the newest of each",
)
_callback_s = _distributed("notify.webhook.request", description="a call of a customer's URL, by outcome")
_redis_calls = _counted("notify.redis.commands", description="Redis commands sent")
_redis_errors = _counted("notify.redis.errors", description="Redis calls that failed, by error")
_redis_s = _distributed("notify.redis.pipeline", description="one pipeline to Redis")
_oldest_pending = Ages(
    "notify.oldest_pending",
    description="age of the oldest notification pending, by its channel's kind and connection",
)
_webhook_lag = Ages(
    "notify.webhook_delivery_lag",
    description="for how long the webhook delivery that is due longest has been",
)


class _Redis:
    """Who found no answer, for as long as it exists."""

    lost: ClassVar[WeakSet[object]] = WeakSet()


class _Spans:
    """Whether spans go anywhere."""

    wanted = False


def _redis_up(_: CallbackOptions) -> Iterable[Observation]:
    yield Observation(int(not _Redis.lost))


_meter.create_observable_gauge(
    "notify.redis.up", [_redis_up], description="1 while every Redis that is asked answers"
)


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


def watch_sessions(count: Callable[[str], int]) -> None:
    """Shows the number of session sockets an edge holds, by dialect, as of each scrape."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for dialect in ("kazoo", "cognism"):
            yield Observation(count(dialect), {"dialect": dialect})

    _meter.create_observable_gauge("notify.sessions", [observe], description="session sockets held now")


def watch_draining(is_draining: Callable[[], bool]) -> None:
    """Shows whether an edge was told to stop, as of each scrape: what it holds is then what remains."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(int(is_draining()))

    _meter.create_observable_gauge(
        "notify.draining", [observe], description="1 while an edge lets go of what it holds"
    )


def record_acked(place: str, count: int) -> None:
    """Notifications were acked, the newest of them at this place in its queue: it begins with its ms."""
    acked.add(count)
    if count > 0:
        queued_s = int(place.partition("-")[0]) / 1000
        # Redis may have another idea of the time.
        _delivery_s.record(max(0.0, time.time() - queued_s), times=count)


def record_oldest_pending(
    oldest_ms: Mapping[tuple[str, bool], int], *, now_ms: int, good_for_s: float
) -> None:
    """Since when the oldest is pending, by kind of channel and by whether somebody live holds it."""
    _oldest_pending.found(
        (
            ((now_ms - since_ms) / 1000, {"kind": kind, "connected": "yes" if connected else "no"})
            for (kind, connected), since_ms in oldest_ms.items()
        ),
        good_for_s=good_for_s,
    )


def record_webhook_lag(oldest_ms: int, *, now_ms: int, good_for_s: float) -> None:
    """Since when the oldest webhook delivery is due that is."""
    _webhook_lag.found([((now_ms - oldest_ms) / 1000, _NO_LABELS)], good_for_s=good_for_s)


def redis_answered(commands: int, took_s: float) -> None:
    """Redis has answered a pipeline."""
    _redis_calls.add(commands)
    _redis_s.record(took_s)


def redis_lost(line: object) -> None:
    """Whoever speaks to one Redis has no answer from it. Of a cluster one primary may be lost alone."""
    _Redis.lost.add(line)


def redis_back(line: object) -> None:
    _Redis.lost.discard(line)


def redis_failed(error: str) -> None:
    _redis_errors.add(1, {"error": error})


def dropped_for_slow_reader(count: int) -> None:
    """Notifications that a session's socket did not take fast enough."""
    if count:
        dropped.add(count, {"reason": "slow-reader"})


def dropped_from_queue(*, over: int, old: int) -> None:
    """Notifications that a queue gave up: as over its limit, as too old."""
    if over:
        dropped.add(over, {"reason": "queue-full"})
    if old:
        dropped.add(old, {"reason": "too-old"})


@contextmanager
def publish_span(account: str, events: int, *, traceparent: str | None) -> Iterator[str]:
    """`publish`: one request's events, from their reading to Redis holding every copy.

    A child of the publisher's own span, if it named one. Gives the traceparent that is to travel with the
    events: of this span if it is recorded, else the publisher's; '' if there was none, or a malformed one.
    """
    started = time.perf_counter()
    if not traceparent and not _Spans.wanted:
        yield ""
        publish_s.record(time.perf_counter() - started)
        return
    parent = _context_in(traceparent) if traceparent else None
    publishers = trace.get_current_span(parent).get_span_context() if parent is not None else None
    facts: dict[str, str | int] = {"account": account, "events": events}
    with _tracer.start_as_current_span("publish", context=parent, attributes=facts) as span:
        if publishers is None or not publishers.is_valid:
            yield ""
        else:
            yield _traceparent(span.get_span_context() if span.is_recording() else publishers)
    publish_s.record(time.perf_counter() - started)


def is_recorded(traceparent: str) -> bool:
    """Does anybody want spans of this trace? Not if its flag says no, nor without a place to send them to."""
    is_sampled = traceparent != "" and int(traceparent[-2:], 16) & 1 == 1
    return is_sampled and _Spans.wanted


def somebody_wants_spans() -> None:
    """There is a place to send them to. Before, none is begun: the SDK takes long to do nothing with one."""
    _Spans.wanted = True


def notification_span(
    step: str, *, traceparent: str, channel: str, event: str, start_ns: int, end_ns: int
) -> None:
    """`notification.queued`, `.sent` or `.acked`: a step on one notification's way that is over."""
    facts = {"channel": channel, "event": event}
    span = _tracer.start_span(
        f"notification.{step}", context=_context_in(traceparent), start_time=start_ns, attributes=facts
    )
    span.end(end_ns)


def _context_in(traceparent: str) -> Context:
    # A context of its own, not the current one: what is malformed must not become a child of whatever runs.
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())


def _traceparent(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"


@contextmanager
def claim_span(channel: str) -> Iterator[Span]:
    """`lease.claim`: a socket becomes the owner of its channel."""
    with _tracer.start_as_current_span("lease.claim", attributes={"channel": channel}) as span:
        yield span


@contextmanager
def delivery_span(channel: str) -> Iterator[Span]:
    """`delivery.loop`: one pass over a queue: ack, peek, deliver, until nothing is left to do."""
    with _tracer.start_as_current_span("delivery.loop", attributes={"channel": channel}) as span:
        yield span


def request_answered(method: str, status: int) -> None:
    requests.add(1, {"method": method, "status": status})


def record_webhook_request(outcome: str, took_s: float) -> None:
    """A customer's URL was called."""
    _callback_s.record(took_s, {"outcome": outcome})
