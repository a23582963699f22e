"""Lets web pages of other origins use the API (CORS).

No request is authenticated by a cookie, so a page can only use a secret that it has. Health and metrics need
no secret: other origins may not read them, or any page could do so through a browser inside the network.
"""

from collections.abc import Awaitable, Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_OPERATOR_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_METHODS = ("DELETE", "GET", "HEAD", "POST", "PUT")
_EXPOSED_HEADERS = ("X-Request-Id", "Retry-After", "Idempotent-Replayed", "X-Last-Uid", "WWW-Authenticate")
_PREFLIGHT_S = 24 * 60 * 60


def cross_origin(app: ASGIApp, *, origins: Collection[str]) -> ASGIApp:
    """The app for pages of these origins, `*` for any. Browsers hide the responses from other pages."""
    if not origins:
        return app
    with_cors = CORSMiddleware(
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
