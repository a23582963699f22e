"""Starlette apps whose paths are exact, and whose errors have our form."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from shared.runtime.http.responses import internal_error_response, problem_response


def app_of(
    routes: Sequence[BaseRoute],
    *,
    error_handlers: Mapping[Any, Callable[..., Any]] = MappingProxyType(
        {HTTPException: problem_response, Exception: internal_error_response}
    ),
) -> Starlette:
    """An app. Starlette's default for a slash too many is a redirect to whatever `Host` says, over plain http
    behind a proxy that terminates TLS: here it is a 404."""
    app = Starlette(routes=routes, exception_handlers=dict(error_handlers))
    app.router.redirect_slashes = False
    return app
