"""Where measurements go: /metrics for Prometheus, and an OTLP collector for traces if one is configured.

`shared.telemetry` names what is measured, and works without this module.
"""

import threading
from collections.abc import Iterable
from itertools import accumulate

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from shared import telemetry
from shared.meters import BOUNDS_S

TRACES_PATH = "/v1/traces"
# For one batch with all its retries while the collector is unreachable.
BATCH_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 3.0

_BUCKETS = (*map(str, BOUNDS_S), "+Inf")


def start_metrics(*, service: str, replica: str) -> None:
    """Puts measurements on `metrics_page()`. A second call in a process changes nothing."""
    if isinstance(metrics.get_meter_provider(), MeterProvider):
        return
    reader = PrometheusMetricReader(scope_info_enabled=False)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader], resource=_resource(service, replica)))
    REGISTRY.register(Distributions())


class Distributions(Collector):
    """Our distributions as Prometheus histograms: OpenTelemetry has none that is read only at a scrape."""

    def collect(self) -> Iterable[HistogramMetricFamily]:
        for distribution in filter(lambda each: each.spreads, telemetry.distributions):
            label_names = [name for name, _ in next(iter(distribution.spreads))]
            name = distribution.name.replace(".", "_") + "_seconds"
            family = HistogramMetricFamily(name, distribution.description, labels=label_names)
            for labels, spread in distribution.spreads.items():
                buckets = list(zip(_BUCKETS, accumulate(spread.counts), strict=True))
                family.add_metric([str(value) for _, value in labels], buckets, spread.sum_s)
            yield family


def metrics_page() -> tuple[bytes, str]:
    """The body of /metrics and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


def start_traces(*, service: str, replica: str, otlp_url: str | None) -> None:
    """Sends spans to the collector at `otlp_url` in batches; without a URL no span is recorded."""
    if otlp_url is None or isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    # Imported late: its HTTP client and protobuf take megabytes that most processes never use.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from shared.runtime.collector_session import collector_session

    url = otlp_url.rstrip("/")
    endpoint = url if url.endswith(TRACES_PATH) else url + TRACES_PATH
    provider = TracerProvider(resource=_resource(service, replica), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=BATCH_TIMEOUT_S, session=collector_session())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    telemetry.enable_spans()


def stop_telemetry() -> None:
    """Sends the queued spans, at the end of a process. Blocks for FLUSH_TIMEOUT_S at most."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        # In a thread: the SDK bounds the time of each batch, but not of the whole queue.
        flush = threading.Thread(target=provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_TIMEOUT_S)


def _resource(service: str, replica: str) -> Resource:
    return Resource.create({"service.name": service, "service.instance.id": replica})
