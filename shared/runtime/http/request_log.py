"""The outermost layer of every HTTP service: request ids, the request counter, and a log of exceptions."""

import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.runtime.http.responses import REQUEST_ID, record_failure, record_response, request_id_of

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
                if scope["extensions"]["http.connection"]["owes_continue"]():
                    # Without a 100 some clients send the body, and some their next request in its place.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            record_failure(scope["method"], scope["path"], error, request_id=request_id)
        record_response(scope["method"], scope["path"], status, request_id=request_id, started=started)
