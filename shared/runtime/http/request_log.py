"""The outermost layer of every HTTP service: request ids, the request counter, and a log of exceptions."""

import logging
import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import telemetry
from shared.runtime.http.responses import REQUEST_ID, request_id_of

logger = logging.getLogger(__name__)

_REQUEST_ID = REQUEST_ID.encode()


class RequestLog:
    """Wraps an ASGI app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # No coroutine for a WebSocket: it would stay in memory until the socket closes.
        wrapped = self._respond if scope["type"] == "http" else self._app
        return wrapped(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)
        status = 0
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            record_failure(scope["method"], scope["path"], error, request_id=request_id)
        record_response(scope["method"], scope["path"], status, request_id=request_id, started=started)


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
