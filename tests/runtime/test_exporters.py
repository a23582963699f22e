"""Traces go to a collector over TLS: a process that sends one span."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.certificates import Certificates
from tests.harness.collector import Collector, collecting
from tests.harness.processes import CHECKOUT, environment

ONE_SPAN = """
import sys
from opentelemetry import trace
from shared.runtime.exporters import start_traces, stop_telemetry
start_traces(service="gateway", replica="g-0", otlp_url=sys.argv[1])
trace.get_tracer("test").start_span("publish").end()
stop_telemetry()
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    for kind in ("", "bare-"):
        made.make(f"{kind}authority", is_bare=bool(kind))
        made.make(f"{kind}collector", by=f"{kind}authority", is_bare=bool(kind))
    return made


def send_one_span(collector: Collector, authority: Path) -> None:
    # requests prefers these to what it is given.
    env = {name: value for name, value in environment().items() if not name.endswith("CA_BUNDLE")}
    env["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(authority)
    command = [sys.executable, "-c", ONE_SPAN, collector.url]
    subprocess.run(command, env=env, cwd=CHECKOUT, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("trusted", "arrives"), [("authority", False), ("bare-authority", True)], ids=["stranger", "bare"]
)
def test_the_collector_s_certificate_is_verified_the_same_on_every_python(
    certificates: Certificates, trusted: str, arrives: bool
) -> None:
    """A private authority may leave key usage and identifiers of keys out."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.pem("bare-collector"), certificates.key("bare-collector"))
    with collecting(tls) as collector:
        send_one_span(collector, certificates.pem(trusted))

    assert [span.name for span in collector.spans] == ["publish"] * arrives
