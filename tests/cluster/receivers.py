"""Webhooks of an account, and their receiver on the node."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tests.cluster.caller import expect
from tests.cluster.places import NODE_IP
from tests.cluster.release import Release

_PORT = 8098
_URL = f"http://{NODE_IP}:{_PORT}/"
_PROGRAM = """
import http.server, json, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        # The request that tests a new webhook is answered at once.
        time.sleep(float(sys.argv[3]) if body else 0)
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


@contextlib.contextmanager
def receiver(release: Release, *, delay_s: float = 0.0) -> Iterator[None]:
    """Accepts every request, after so many seconds."""
    process = release.cluster.start(
        sys.executable, "-c", _PROGRAM, NODE_IP, str(_PORT), str(delay_s), log="receiver"
    )
    try:
        again = ("--retry", "20", "--retry-connrefused", "--retry-delay", "1")
        release.cluster.run("curl", "--silent", *again, "--request", "PUT", "--data", "{}", _URL)
        yield
    finally:
        process.terminate()
        process.wait(10)


class Webhooks:
    """So many webhooks, registered while their receiver runs."""

    def __init__(self, release: Release, *, count: int) -> None:
        self._release = release
        self._admin = release.admin_token()
        body = {"name": "webhooks"}
        account = expect(release, 201, "POST", "/v1/accounts", token=self._admin, body=body).json["id"]
        self._path = f"/v1/accounts/{account}/api-keys"
        self._publisher = self._key("publish")
        self._keys = [self._key("receive") for _ in range(count)]
        for key in self._keys:
            given = {"url": f"{_URL}{key['id']}"}
            expect(release, 204, "PUT", "/v2/notification/callback", token=key["secret"], body=given)

    def publish(self) -> None:
        """One event for each."""
        events = [{"topic": "cluster.webhook", "data": {}, "to": key["id"]} for key in self._keys]
        expect(self._release, 202, "POST", "/v1/events", token=self._publisher["secret"], body=events)

    def wait_delivered(self) -> None:
        self._release.wait("the retries of all webhooks", lambda: not any(map(self._pending, self._keys)))

    def end(self) -> None:
        for key in (*self._keys, self._publisher):
            expect(self._release, 204, "DELETE", f"/v1/api-keys/{key['id']}", token=self._admin)

    def _key(self, scope: str) -> Any:
        body = {"name": "webhooks", "scopes": [scope]}
        return expect(self._release, 201, "POST", self._path, token=self._admin, body=body).json

    def _pending(self, key: Any) -> int:
        path = f"/v1/channels/{key['id']}"
        return int(expect(self._release, 200, "GET", path, token=self._admin).json["pending"])
