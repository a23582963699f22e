"""Where measurements go: metrics are fetched from /metrics, traces are sent to a collector if there is one.

What is measured, and under which name, is `shared.telemetry`'s; it needs none of this to work.
"""

import math
import threading
import time
from dataclasses import replace
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shared import telemetry
from shared.telemetry import BOUNDS_S, Distribution, Spread, distributions

TRACES_PATH = "/v1/traces"
# With all its retries, when the collector is away.
BATCH_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 3.0
_STARTED_NS = time.time_ns()


def start_metrics(*, service: str, replica: str) -> None:
    """From now on what is measured is on `metrics_page()`; a second call in a process changes nothing."""
    if isinstance(metrics.get_meter_provider(), MeterProvider):
        return
    reader = _Reader(scope_info_enabled=False)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader], resource=_resource(service, replica)))


class _Reader(PrometheusMetricReader):
    """Reads our distributions with what the SDK has counted."""

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(with_distributions(metrics_data), timeout_millis, **kwargs)


def with_distributions(collected: MetricsData) -> MetricsData:
    """What the SDK has collected, and our distributions as histograms of its own kind, for any exporter."""
    now_ns = time.time_ns()
    scope = InstrumentationScope("notification-gateway")
    ours = [_histogram(each, now_ns=now_ns) for each in distributions if each.spreads]
    resources = [
        replace(each, scope_metrics=[*each.scope_metrics, ScopeMetrics(scope, ours, schema_url="")])
        for each in collected.resource_metrics
    ]
    return MetricsData(resources)


def _histogram(of: Distribution, *, now_ns: int) -> Metric:
    def point(labels: tuple[tuple[str, str | int], ...], spread: Spread) -> HistogramDataPoint:
        return HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=_STARTED_NS,
            time_unix_nano=now_ns,
            count=sum(spread.counts),
            sum=spread.sum_s,
            bucket_counts=tuple(spread.counts),
            explicit_bounds=BOUNDS_S,
            # As the SDK has them where they are not kept: they would be of the process' whole life.
            min=math.inf,
            max=-math.inf,
        )

    points = [point(labels, spread) for labels, spread in of.spreads.items()]
    data = Histogram(points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
    return Metric(of.name, of.description, unit="s", data=data)


def metrics_page() -> tuple[bytes, str]:
    """The body of /metrics and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


def start_traces(*, service: str, replica: str, otlp_url: str | None) -> None:
    """Spans go to the collector at `otlp_url` in batches; without one they are never recorded."""
    if otlp_url is None or isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    # Imported late: it brings an HTTP client and protobuf, some megabytes that most processes never use.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    url = otlp_url.rstrip("/")
    endpoint = url if url.endswith(TRACES_PATH) else url + TRACES_PATH
    provider = TracerProvider(resource=_resource(service, replica), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=BATCH_TIMEOUT_S))
    )
    trace.set_tracer_provider(provider)
    telemetry.enable_spans()


def stop_telemetry() -> None:
    """Sends the spans that still wait; blocks for FLUSH_TIMEOUT_S at most: the last act of a process."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        # In a thread of its own: the SDK goes through its queue batch by batch, and bounds only each of them.
        flush = threading.Thread(target=provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_TIMEOUT_S)


def _resource(service: str, replica: str) -> Resource:
    return Resource.create({"service.name": service, "service.instance.id": replica})
