"""What every receiver of Python reports: one line of JSON for its ports, and one for each request."""

import json
import threading
from collections.abc import Iterable, Mapping

LIMIT_BYTES = 100_000

_printing = threading.Lock()
_redirected: set[str] = set()


def report(event: Mapping[str, object]) -> None:
    with _printing:
        print(json.dumps(event), flush=True)


def record(
    path: str,
    status: int,
    body: bytes | None,
    *,
    headers: Iterable[tuple[str, str]],
    version: str,
    peer: tuple[str, int],
) -> None:
    """Reports a request that was decided. A body of None was not read."""
    names = {name.lower(): value for name, value in headers}
    report(
        {
            "path": path,
            "status": status,
            "body": None if body is None else body.decode(),
            "version": version,
            "headers": names,
            "peer": f"{peer[0]}:{peer[1]}",
            "length": int(names.get("content-length", "-1")),
        }
    )


def decided(behaviour: str, path: str, body: bytes) -> int:
    """The status of the response. A redirecting one redirects the first request behind the test request."""
    if behaviour.startswith("redirect-") and body != b"{}" and path not in _redirected:
        _redirected.add(path)
        return int(behaviour.removeprefix("redirect-"))
    return 204 if behaviour.startswith("no-content") else 200
