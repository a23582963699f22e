"""Lets web pages of other origins use the API (CORS).

No request is authenticated by a cookie, so a page can only use a secret that it has. Health and metrics need
no secret: other origins may not read them, or any page could do so through a browser inside the network.
"""

from collections.abc import Awaitable, Collection, Mapping

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.runtime.http.request_head import members
from shared.runtime.http.responses import error_body, request_id_of

_OPERATOR_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_EXPOSED_HEADERS = ("X-Request-Id", "Retry-After", "Idempotent-Replayed", "X-Last-Uid", "WWW-Authenticate")
_WANTED = "access-control-request-headers"
_PREFLIGHT_S = 24 * 60 * 60


class _Cors(CORSMiddleware):
    """Starlette's, with our form of errors, and with every line of Access-Control-Request-Headers."""

    def preflight_response(self, request_headers: Headers) -> Response:
        wanted = b", ".join(members(request_headers.raw, _WANTED.encode())).decode("latin-1")
        if wanted:
            request_headers = Headers({**request_headers, _WANTED: wanted})
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        reason = bytes(response.body).decode()
        return _RefusedPreflight(f"{reason}; see Access-Control-Allow-Methods", response.headers)


class _RefusedPreflight(Response):
    """A preflight that asks for what is not allowed."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
        super().__init__(headers=kept, status_code=400)
        self._message, self._kept = message, kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = error_body(400, self._message, request_id=request_id_of(scope))
        response = Response(body, 400, self._kept, media_type="application/json")
        await response(scope, receive, send)


def cross_origin(app: ASGIApp, *, origins: Collection[str]) -> ASGIApp:
    """The app for pages of these origins, `*` for any. Browsers hide the responses from other pages."""
    if not origins:
        return app
    with_cors = _Cors(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=("*",),
        allow_private_network=True,
        expose_headers=_EXPOSED_HEADERS,
        max_age=_PREFLIGHT_S,
    )

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        may_read = False
        if scope["type"] == "http" and scope["path"] not in _OPERATOR_PATHS:
            for name, value in scope["headers"]:
                if name == b"origin":
                    may_read = with_cors.is_allowed_origin(value.decode("latin-1"))
                    break
        return (with_cors if may_read else app)(scope, receive, send)

    return dispatch
