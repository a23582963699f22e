"""Every span and every metric by name. `runtime.exporters` decides where they go.

Prometheus shows the dots as underscores and adds the unit: `notify.published` is `notify_published_total`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MappingProxyType
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanContext, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared import clock
from shared.meters import Count, Distribution, Labels
from shared.version import PYTHON, REVISION, VERSION

_meter = metrics.get_meter("notification-gateway")
_tracer = trace.get_tracer("notification-gateway")

_NO_LABELS: Labels = MappingProxyType({})

_SCANS_SHOWN = 3
_SHOWN_S = 30.0


class Readings:
    """Values found by a scan, shown until the next scans are overdue: another process may run those."""

    def __init__(self, name: str, *, unit: str, description: str) -> None:
        self._values: list[Observation] = []
        self._good_until_s = 0.0
        _meter.create_observable_gauge(name, [self._observe], unit=unit, description=description)

    def set(self, values: Iterable[tuple[float, Labels]], *, every_s: float) -> None:
        """Replaces the values until the next scan, in `every_s`. Negative ages become 0."""
        self._values = [Observation(max(0.0, value), dict(labels)) for value, labels in values]
        self._good_until_s = time.monotonic() + _SCANS_SHOWN * every_s + _SHOWN_S

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return self._values if time.monotonic() < self._good_until_s else ()


distributions: list[Distribution] = []
"""All of the process."""


def _distribution(name: str, *, description: str) -> Distribution:
    distributions.append(Distribution(name, description=description))
    return distributions[-1]


def _each(label: str, values: str) -> Iterable[Labels]:
    return ({label: value} for value in values.split())


def _count(name: str, *, description: str, shown: Iterable[Labels] = ()) -> Count:
    """`shown`: series that begin at zero. Prometheus does not count the value with which one begins."""
    count = Count()
    for labels in shown:
        count.series(labels)
    _meter.create_observable_counter(name, [count.observe], description=description)
    return count


def _gauge(
    name: str, *, description: str, labels: Sequence[Labels] = (_NO_LABELS,)
) -> Callable[[Callable[..., int]], None]:
    """A function that sets what reads the gauge at each scrape, given the values of each set of labels."""
    reads: list[Callable[..., int]] = []

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(int(read(*each.values())), dict(each)) for read in reads for each in labels]

    def watch(read: Callable[..., int]) -> None:
        if not reads:
            _meter.create_observable_gauge(name, [observe], description=description)
        # Only the newest: the meter would keep every edge that a process has ever made.
        reads[:] = [read]

    return watch


_gauge(
    "notify.build.info",
    description="1; the labels name the version, the commit of an image, and the Python",
    labels=[{"version": VERSION, "revision": REVISION, "python": PYTHON}],
)(lambda *_: 1)
published = _count("notify.published", description="events accepted by POST /v1/events")
idempotent_requests = _count(
    "notify.idempotent.requests",
    description="publish requests with an Idempotency-Key, by whether it was used before",
)
repaired = _count(
    "notify.publishes.repaired", description="publishes that met a changed routing table, and were repaired"
)
quota_refused = _count("notify.quota.refused", description="requests and sockets refused, by quota")
queued = _count("notify.queued", description="notifications appended to queues")
queued_again = _count("notify.queued.again", description="retained events queued once more, by why")
sent = _count("notify.sent", description="notifications sent, by dialect; to webhooks: accepted")
expired = _count("notify.channels.expired", description="channels deleted after their idle expiry")
frames = _count("notify.frames", description="text frames written to sockets, by dialect")
acked = _count("notify.acked", description="notifications acknowledged and removed from their queues")
dropped = _count(
    "notify.dropped",
    description="notifications dropped undelivered, by reason",
    shown=_each(
        "reason",
        "queue-full too-old too-long-for-client too-long-for-webhook channel-expired exhausted slow-reader",
    ),
)
webhooks_disabled = _count("notify.webhooks.disabled", description="native webhooks disabled, by reason")
wakeups = _count(
    "notify.wakeups", description="wakeups published by processes; the append script's are not counted"
)
takeovers = _count("notify.takeovers", description="sockets closed because a newer one took the lease")
handshakes = _count("notify.handshakes", description="WebSocket handshakes, by outcome")
polls_ended = _count("notify.polls.closed", description="long polls that ended, by outcome")
streams_closed = _count("notify.streams.closed", description="responses of streams that ended, by reason")
sockets_closed = _count(
    "notify.sockets.closed",
    description="sockets closed, by close reason",
    shown=_each("reason", "unexpected redis-unavailable"),
)
refusals = _count(
    "notify.refusals",
    description="strangers' handshakes and requests refused, and connections closed, by the limit",
)
native_requests = _count(
    "notify.native.requests", description="requests on native WebSockets, by operation and outcome"
)
stream_recoveries = _count(
    "notify.stream.recoveries",
    description="readers of streams that came back with a mark, by outcome",
    shown=_each("outcome", "recovered trimmed expired lost purged"),
)
stream_overflows = _count(
    "notify.stream.overflows",
    description="readers of streams ended since they read too slowly",
    shown=[_NO_LABELS],
)
worker_polls = _count("notify.worker.polls", description="polls of a job queue by the worker of a service")
reaper_rounds = _count(
    "notify.reaper.rounds",
    description="rounds of this reaper, by result: done, standby, failed",
)
routing_reads = _count(
    "notify.routing_table.reads", description="reads of routing tables: of all, or of the changes"
)
requests = _count("notify.http.requests", description="HTTP requests, by method and status")
publish_s = _distribution(
    "notify.publish", description="from a publish request's body until Redis has every notification"
)
client_ack_s = _distribution(
    "notify.client_ack", description="from a ping behind frames to its pong; native: from a frame to its ack"
)
_delivery_s = _distribution(
    "notify.delivery", description="from a notification's append to its ack; in a batch, of its newest"
)
webhook_request_s = _distribution("notify.webhook.request", description="requests to webhooks, by outcome")
_redis_commands = _count("notify.redis.commands", description="Redis commands sent")
_REDIS_COMMANDS = _redis_commands.series()
_redis_errors = _count(
    "notify.redis.errors",
    description="Redis calls that failed, by error",
    shown=_each("error", "OutOfMemoryError"),
)
_redis_s = _distribution("notify.redis.pipeline", description="round trips of one pipeline to Redis")
_oldest_pending = Readings(
    "notify.oldest_pending",
    unit="s",
    description="age of the oldest pending notification, by kind of channel and whether it is connected",
)
_webhook_lag = Readings(
    "notify.webhook_delivery_lag",
    unit="s",
    description="how long the most overdue webhook delivery has been due",
)
_redis_memory = Readings(
    "notify.redis.memory", unit="By", description="what each Redis has in use, as counted against its limit"
)
_redis_memory_limit = Readings(
    "notify.redis.memory_limit", unit="By", description="maxmemory of each Redis; 0 without a limit"
)
watch_sockets = _gauge("notify.sockets", description="sockets held now")
watch_polls = _gauge("notify.polls", description="long polls held now")
watch_sessions = _gauge(
    "notify.sessions",
    description="session and native sockets held now, by dialect",
    labels=[{"dialect": "kazoo"}, {"dialect": "cognism"}, {"dialect": "native"}],
)
watch_strangers = _gauge(
    "notify.sockets.unauthenticated",
    description="session and native sockets held now that have not authenticated",
)
watch_replays = _gauge("notify.replays", description="replays that a dispatcher works at now")
watch_stream_readers = _gauge("notify.stream.readers", description="readers of topics, on this edge")
watch_stream_topics = _gauge("notify.stream.topics", description="topics that have readers on this edge")
watch_draining = _gauge("notify.draining", description="1 while an edge drains: closes its sockets at a pace")

lost_redis: WeakSet[object] = WeakSet()
"""Clients whose last Redis call failed. A cluster has one client for each primary."""


awaited_redis: WeakSet[object] = WeakSet()
"""What a process has not had from a Redis since its start: a reply, a subscription, work for its worker."""


def is_redis_up() -> bool:
    """Every Redis was reached, and every client's last call had a reply."""
    return not lost_redis and not awaited_redis


_gauge("notify.redis.up", description="1 while every Redis in use replies")(is_redis_up)


def _clock_gauge(name: str, read_ns: Callable[[], int | None], *, description: str) -> None:
    """A difference between clocks, shown once Redis' time is known."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        difference_ns = read_ns()
        return () if difference_ns is None else [Observation(difference_ns / 1e9)]

    _meter.create_observable_gauge(name, [observe], unit="s", description=description)


_clock_gauge(
    "notify.clock.offset",
    clock.PROCESS.ahead_ns,
    description="how far this machine's time is ahead of Redis' time",
)
_clock_gauge(
    "notify.redis.clock_spread",
    clock.PROCESS.spread_ns,
    description="the largest difference between the times of two primaries",
)


class _Spans:
    """Whether spans are exported."""

    enabled = False


spans, _NO_SPAN = _Spans(), nullcontext(trace.INVALID_SPAN)


def record_acked(entry_id: str, count: int) -> None:
    """Counts acked notifications. `entry_id`, the newest, begins with the time of its append in ms."""
    acked.add(count)
    if count > 0:
        queued_s = int(entry_id.partition("-")[0]) / 1000
        # Another Redis of a cluster may be ahead.
        _delivery_s.record(max(0.0, clock.now_ms() / 1000 - queued_s), times=count)


def record_oldest_pending(oldest_ms: Mapping[tuple[str, bool], int], *, now_ms: int, every_s: float) -> None:
    """Since when the oldest notification is pending, by kind of channel and whether that is connected."""
    _oldest_pending.set(
        (
            ((now_ms - since_ms) / 1000, {"kind": kind, "connected": "yes" if connected else "no"})
            for (kind, connected), since_ms in oldest_ms.items()
        ),
        every_s=every_s,
    )


def record_memory(used_and_limit: Mapping[str, tuple[int, int]], *, every_s: float) -> None:
    """Bytes in use and the limit, by the name of each Redis."""
    for readings, place in ((_redis_memory, 0), (_redis_memory_limit, 1)):
        readings.set(
            ((both[place], {"primary": primary}) for primary, both in used_and_limit.items()), every_s=every_s
        )


def record_webhook_lag(oldest_ms: int, *, now_ms: int, every_s: float) -> None:
    """Since when the most overdue webhook delivery has been due."""
    _webhook_lag.set([((now_ms - oldest_ms) / 1000, _NO_LABELS)], every_s=every_s)


def record_pipeline(commands: int, took_s: float) -> None:
    _REDIS_COMMANDS.total += commands
    _redis_s.record(took_s)


def record_redis_error(error: str) -> None:
    _redis_errors.add(1, {"error": error})


def dropped_for_slow_reader(count: int) -> None:
    """Counts notifications that a session socket read too slowly to get."""
    if count:
        dropped.add(count, {"reason": "slow-reader"})


def dropped_from_queue(*, over: int, old: int) -> None:
    """Counts notifications that a queue dropped: `over` its size limit, `old` beyond their lifetime."""
    if over:
        dropped.add(over, {"reason": "queue-full"})
    if old:
        dropped.add(old, {"reason": "too-old"})


class PublishSpan:
    """`publish`: one request, from its body until Redis has every notification.

    A child of the publisher's span. `traceparent`, for the events, is that of this span if it is recorded,
    else the publisher's; '' if that is absent or malformed.
    """

    __slots__ = ("_span", "traceparent")

    def __init__(self, account: str, events: int, *, traceparent: str | None) -> None:
        self.traceparent = ""
        parent = _context_in(traceparent) if traceparent else None
        publisher = trace.get_current_span(parent).get_span_context() if parent is not None else None
        facts: dict[str, str | int] = {"account": account, "events": events}
        self._span = _tracer.start_span("publish", context=parent, attributes=facts)
        if publisher is not None and publisher.is_valid:
            recorded = self._span.get_span_context() if self._span.is_recording() else publisher
            self.traceparent = _traceparent(recorded)

    def end(self, error: Exception | None) -> None:
        if error is not None:
            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, str(error))
        self._span.end()


def is_recorded(traceparent: str) -> bool:
    """False if the trace's sampled flag is off, or if spans are not exported."""
    is_sampled = traceparent != "" and int(traceparent[-2:], 16) & 1 == 1
    return is_sampled and spans.enabled


def enable_spans() -> None:
    """Begins spans from now on. Without a collector none is begun: the SDK is slow even if it drops them."""
    spans.enabled = True


def notification_span(
    step: str, *, traceparent: str, channel: str, event: str, start_ns: int, end_ns: int
) -> None:
    """`notification.queued`, `.sent` or `.acked`: one step of a notification, after it has ended."""
    facts = {"channel": channel, "event": event}
    span = _tracer.start_span(
        f"notification.{step}", context=_context_in(traceparent), start_time=start_ns, attributes=facts
    )
    span.end(end_ns)


def _context_in(traceparent: str) -> Context:
    # An empty context: with the current one, a malformed header would yield a child of the current span.
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())


def _traceparent(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"


def _span(name: str, channel: str) -> AbstractContextManager[Span]:
    return _tracer.start_as_current_span(name, attributes={"channel": channel}) if spans.enabled else _NO_SPAN


claim_span = partial(_span, "lease.claim")
"""`lease.claim`: claiming a channel."""
delivery_span = partial(_span, "delivery.loop")
"""`delivery.loop`: reads, deliveries and acks, from a wakeup until the loop is idle."""
