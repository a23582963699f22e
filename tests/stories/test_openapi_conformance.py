"""Generated requests, valid and invalid, get the responses that the OpenAPI document describes."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from services.gateway.app import DOCUMENT
from tests.harness.stack import Stack

ON_THE_EDGE = (
    "/v1/socket",
    "/v1/stream",
    "/v2/notification/pull",
    "/v2/notification/websocket-connect",
    "/api/v1/websocket",
    "/socket",
)
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
]
# Also 413 for a body that is too long, and 426 for a plain request to a WebSocket path.
REFUSALS = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 426]
CONFIG = SchemathesisConfig.from_dict(
    {"seed": 1, "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}
)
DOCUMENTED = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
BOUNDED = hypothesis.settings(
    max_examples=10,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


class _Accepts(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def receiver_url() -> Iterator[str]:
    """The URL of a receiver that accepts every request."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Accepts) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


@pytest.fixture
def secret(stack: Stack) -> str:
    """The secret of a new API key with all scopes."""
    admin = {"Authorization": f"Bearer {stack.admin_token}"}
    url = stack.gateways[0].url
    account = requests.post(f"{url}/v1/accounts", json={"name": "x"}, headers=admin, timeout=20).json()
    wanted = {"name": "x", "scopes": ["publish", "receive", "admin"]}
    made = requests.post(
        f"{url}/v1/accounts/{account['id']}/api-keys", json=wanted, headers=admin, timeout=20
    )
    return str(made.json()["secret"])


@DOCUMENTED.parametrize()
@BOUNDED
def test_responses_conform_to_the_document(case: Any, stack: Stack, secret: str, receiver_url: str) -> None:
    checks = CHECKS
    if case.path == "/v2/notification/pull":
        if "noWait" in (case.query or {}):
            # The line below corrects this parameter, which may have been the invalid one.
            checks = [check for check in CHECKS if check is not negative_data_rejection]
        case.query = {**(case.query or {}), "noWait": "true"}
    if case.path == "/v1/accounts" and case.method == "GET":
        # The line below corrects the header, and unknown parameters of a query are ignored.
        checks = [check for check in CHECKS if check is not negative_data_rejection]
    if case.path == "/v2/notification/callback" and isinstance(case.body, dict):
        url = case.body.get("url")
        # Never call a host outside this machine.
        if isinstance(url, str) and re.match("https?://", url, re.IGNORECASE) and len(url) <= 400:
            case.body["url"] = receiver_url
    server = stack.edges[0] if case.path in ON_THE_EDGE else stack.gateways[0]
    token = stack.admin_token if case.path == "/v1/accounts" else secret
    case.call_and_validate(
        base_url=server.url, headers={"Authorization": f"Bearer {token}"}, checks=checks, timeout=20
    )
