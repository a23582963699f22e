"""Lets web pages of other origins use the API (CORS).

Nothing here is proven by a cookie: a page can only use a secret that it has. What shows the inside of this
process to whoever can reach it stays with pages of its own origin, or any page could read it through the
browser of somebody within the network.
"""

from collections.abc import Awaitable, Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_OPERATORS = frozenset({"/livez", "/readyz", "/metrics"})
_METHODS = ("DELETE", "GET", "HEAD", "POST", "PUT")
_SHOWN = ("X-Request-Id", "Retry-After", "Idempotent-Replayed", "X-Last-Uid", "WWW-Authenticate")
_PREFLIGHT_S = 24 * 60 * 60


def cross_origin(app: ASGIApp, *, origins: Collection[str]) -> ASGIApp:
    """The app for pages of these origins, `*` for any. Others get the same answers, and cannot read them."""
    if not origins:
        return app
    shared = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=("*",),
        allow_private_network=True,
        expose_headers=_SHOWN,
        max_age=_PREFLIGHT_S,
    )

    def judge(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        may_read = False
        if scope["type"] == "http" and scope["path"] not in _OPERATORS:
            for name, value in scope["headers"]:
                if name == b"origin":
                    may_read = shared.is_allowed_origin(value.decode("latin-1"))
                    break
        return (shared if may_read else app)(scope, receive, send)

    return judge
