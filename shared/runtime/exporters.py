"""Where measurements go: metrics are fetched from /metrics, traces are sent to a collector if there is one.

What is measured, and under which name, is `shared.telemetry`'s; it needs none of this to work.
"""

import threading

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
TRACES_PATH = "/v1/traces"
# With all its retries, when the collector is away.
BATCH_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 3.0


def start_metrics(*, service: str, replica: str) -> None:
    """From now on what is measured is on `metrics_page()`; a second call in a process changes nothing."""
    if isinstance(metrics.get_meter_provider(), MeterProvider):
        return
    seconds = View(
        instrument_type=Histogram,
        instrument_unit="s",
        aggregation=ExplicitBucketHistogramAggregation(SECONDS_BUCKETS),
    )
    metrics.set_meter_provider(
        MeterProvider(
            metric_readers=[PrometheusMetricReader(scope_info_enabled=False)],
            resource=_resource(service, replica),
            views=[seconds],
        )
    )


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
