"""HTTP responses: a request id on each, and one form for errors.

`{"object": "error", "code", "type", "message", "fields": [{"name", "message"}], "request_id"}`
"""

import logging
import math
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope, Send

from shared import telemetry

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_REQUEST_ID = REQUEST_ID.encode()
_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_RETRY_AFTER = {"retry-after": "1"}
_TYPES = {
    400: "bad_request",
    401: "invalid_auth",
    403: "access_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    417: "expectation_failed",
    426: "upgrade_required",
    429: "too_many_requests",
    431: "headers_too_large",
    500: "internal_error",
    503: "service_unavailable",
}


def new_request_id(given: str = "") -> str:
    """The caller's own id if it is safe to repeat, else a new one."""
    return given if given and _VALID_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def request_id_of(scope: Scope) -> str:
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        given = b""
        for name, value in scope["headers"]:
            if name == _REQUEST_ID:
                given = value
                break
        state["request_id"] = new_request_id(given.decode("latin-1"))
    request_id: str = state["request_id"]
    return request_id


def error_body(
    status: int, message: str, *, request_id: str, fields: Iterable[tuple[str, str]] = (), kind: str = ""
) -> bytes:
    return orjson.dumps(
        {
            "object": "error",
            "code": status,
            "type": kind or _TYPES.get(status, "error"),
            "message": message,
            "fields": [{"name": name, "message": text} for name, text in fields],
            "request_id": request_id,
        }
    )


class Problem(HTTPException):
    """An error response, raised where the error is found."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        kind: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.fields = fields
        self.kind = kind


def unavailable(message: str = "the store cannot take this now; retry") -> Problem:
    """Redis is unreachable or full."""
    return Problem(503, message, headers=_RETRY_AFTER)


def draining() -> Problem:
    """This replica shuts down; another one takes the client."""
    return Problem(503, "this replica is shutting down; connect again", headers=_RETRY_AFTER)


def too_many(message: str) -> Problem:
    """A limit is reached; `message` names it."""
    return Problem(429, message, headers=_RETRY_AFTER)


def quota_exceeded(quota: str, *, retry_after_s: float | None) -> Problem:
    """The caller's account or API key has used up the quota of this name. None: waiting does not help."""
    headers = None if retry_after_s is None else {"retry-after": str(max(1, math.ceil(retry_after_s)))}
    message = f"the quota {quota} is used up"
    return Problem(429, message, fields=[(str(quota), "is used up")], kind="quota_exceeded", headers=headers)


def internal_error() -> Problem:
    return Problem(500, "internal error; it was logged with this request id")


def problem_response(request: Request, error: Exception) -> Response:
    """The response to an HTTPException, ours or the framework's."""
    assert isinstance(error, HTTPException)
    if not isinstance(error, Problem):
        error = _in_our_words(error, request)
    body = problem_body(error, request_id=request_id_of(request.scope))
    return Response(body, error.status_code, error.headers, media_type="application/json")


def _in_our_words(error: HTTPException, request: Request) -> HTTPException:
    """The framework's error, which says neither the rule nor the way out."""
    if error.status_code == 404:
        return Problem(404, "there is no such path; case, slashes and percent-encoding count")
    if error.status_code == 405:
        allowed = ", ".join(methods_at(request))
        return Problem(405, f"the method of this path must be one of {allowed}", headers={"allow": allowed})
    return error


def problem_body(error: HTTPException, *, request_id: str) -> bytes:
    """The JSON of an HTTPException, ours or the framework's."""
    fields, kind = (error.fields, error.kind) if isinstance(error, Problem) else ((), "")
    message = error.detail or HTTPStatus(error.status_code).phrase
    return error_body(error.status_code, message, request_id=request_id, fields=fields, kind=kind)


def methods_at(request: Request) -> list[str]:
    """The methods that this path accepts. The framework names one route's only; we have a route for each."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in routes for method in route.methods})


def internal_error_response(request: Request, _: Exception) -> Response:
    """The response to an unexpected error; the outer middleware logs it."""
    return problem_response(request, internal_error())


async def refuse_handshake(scope: Scope, send: Send, problem: Problem) -> None:
    """Responds to a WebSocket handshake with an HTTP error instead of an upgrade."""
    request_id = request_id_of(scope)
    body = error_body(
        problem.status_code, problem.detail, request_id=request_id, fields=problem.fields, kind=problem.kind
    )
    headers = {"content-type": "application/json", REQUEST_ID: request_id, **(problem.headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": problem.status_code, "headers": pairs})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def record_response(method: str, path: str, status: int, *, request_id: str, started: float) -> None:
    """Counts a response, and logs it at level debug. `started` is of `time.perf_counter`."""
    telemetry.requests.add(1, {"method": method, "status": status})
    if logger.isEnabledFor(logging.DEBUG):
        took_ms = round((time.perf_counter() - started) * 1000, 1)
        facts = {"request_id": request_id, "path": path, "status": str(status)}
        logger.debug("request.answered", extra={"facts": {**facts, "took_ms": took_ms}})


def record_failure(method: str, path: str, error: Exception, *, request_id: str) -> None:
    """Logs an unexpected error of a request."""
    facts = {"request_id": request_id, "method": method, "path": path}
    logger.error("request.failed", extra={"facts": facts}, exc_info=error)
