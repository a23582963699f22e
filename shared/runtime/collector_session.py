"""The HTTP session to the collector of traces: it verifies certificates as `shared.tls` says."""

from typing import Any

from requests import PreparedRequest, Session
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from shared.tls import verifying_alike


class _Adapter(HTTPAdapter):
    def __init__(self) -> None:
        # It trusts nothing yet: the authorities come with each request, by OTEL_EXPORTER_OTLP_CERTIFICATE.
        self._context = verifying_alike(create_urllib3_context())
        super().__init__()

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {**pool, "ssl_context": self._context}


def collector_session() -> Session:
    session = Session()
    session.mount("https://", _Adapter())
    return session
