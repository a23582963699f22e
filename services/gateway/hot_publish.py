"""POST /v1/events by callbacks, when everything that it needs is in memory.

It calls the functions that the endpoint in `publish` calls, and declines what only the endpoint does: a
caller that is not in the cache, an Idempotency-Key, a browser of another origin, a Content-Encoding, a long
body, every error of the request.
"""

import time
from dataclasses import dataclass
from functools import partial

from starlette.exceptions import HTTPException

from services.gateway.authenticator import digest_of
from services.gateway.context import Context
from services.gateway.publish import PATH
from services.problems import EXPECTED, problem_of
from shared.model.api_keys import Scope
from shared.model.errors import Invalid
from shared.publish.request import LONG_BODY_BYTES, Headers, Posted, headers_in, parse, response_body
from shared.runtime.http.hot_routes import HotRequest, HotRoutes
from shared.runtime.http.responses import (
    REQUEST_ID,
    new_request_id,
    problem_body,
    record_failure,
    record_response,
)

_HEADERS = b"content-type: application/json\r\n%b: %%b\r\n" % REQUEST_ID.encode()


@dataclass(frozen=True, slots=True)
class _Caller:
    """What the head of a request says. A client sends the same one again and again."""

    headers: Headers
    digest: bytes


def hot_routes(context: Context) -> HotRoutes:
    """The gateway's hot routes."""
    return {(b"POST", PATH.encode()): partial(_publish, context)}


def _publish(context: Context, request: HotRequest) -> bool:
    started = time.perf_counter()
    caller: _Caller | None = request.head.memo
    if caller is None:
        headers = headers_in(request.head.headers)
        if headers.idempotency_keys or headers.is_cross_origin or headers.is_encoded:
            return False
        caller = request.head.memo = _Caller(headers, digest_of(headers.authorization))
    if len(request.body) > LONG_BODY_BYTES:
        return False
    key = context.authenticator.cached(caller.digest, now_s=time.monotonic())
    if key is None or Scope.PUBLISH not in key.scopes:
        return False
    try:
        posted = parse(key, caller.headers, request.body)
    except Invalid:
        return False
    context.publishing.publisher.begin(posted, partial(_respond, request, caller.headers, posted, started))
    return True


def _respond(
    request: HotRequest, headers: Headers, posted: Posted, started: float, result: list[int] | Exception
) -> None:
    request_id = new_request_id(headers.request_id)
    lines = _HEADERS % request_id.encode()
    if isinstance(result, Exception):
        problem: HTTPException = problem_of(result)
        if not isinstance(result, EXPECTED):
            record_failure("POST", PATH, result, request_id=request_id)
        for name, value in (problem.headers or {}).items():
            lines += f"{name.lower()}: {value}\r\n".encode()
        status, body = problem.status_code, problem_body(problem, request_id=request_id)
    else:
        status, body = 202, response_body(posted, result)
    request.respond(status, lines, body)
    record_response("POST", PATH, status, request_id=request_id, started=started)
