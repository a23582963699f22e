"""The routes of a gateway, and the responses to its errors."""

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import (  # noqa: F401 - each adds its operations
    accounts,
    bindings,
    channels,
    crossbar,
    documented,
    publish,
    receipts,
    session_pushes,
)
from services.gateway.context import Context
from services.gateway.openapi import document
from services.gateway.operations import ANYONE, OPERATIONS, PUBLISHER, Operation
from shared.model.errors import (
    Invalid,
    KeyRevoked,
    KindConflict,
    MissingScope,
    StoreUnavailable,
    TooLarge,
    Unauthenticated,
)
from shared.runtime.http import responses
from shared.runtime.http.responses import Problem

_EXPECTED = HTTPException, Invalid, KindConflict, KeyRevoked, MissingScope, StoreUnavailable, Unauthenticated


@Operation("GET /openapi.json", ANYONE, name="document", successes={200: {"type": "object"}})
async def get_document(_: Request, __: None) -> Response:
    """Gets this document."""
    return Response(_DOCUMENT, media_type="application/json", headers={"cache-control": "no-cache"})


ROUTES: list[BaseRoute] = [operation.route() for operation in OPERATIONS if operation.handler]
DOCUMENT = document(documented.WEBHOOKS)
_DOCUMENT = orjson.dumps(DOCUMENT)


def gateway_app(context: Context, *, more: list[BaseRoute]) -> ASGIApp:
    """The gateway's app. `more` are routes that other modules serve, such as health."""
    handlers = dict.fromkeys((*_EXPECTED, Exception), error_response)
    app = Starlette(routes=[*ROUTES, *more], exception_handlers=handlers)
    app.state.context = context

    async def by_shortcut(scope: Scope, receive: Receive, send: Send) -> None:
        # Routing and middleware cost about as much as the publish itself.
        if scope["type"] == "http" and scope["path"] == publish.PATH and scope["method"] == "POST":
            scope["app"] = app
            await _publish(scope, receive, send)
        else:
            await app(scope, receive, send)

    return by_shortcut


async def _publish(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        response = await publish.publish(request, await PUBLISHER.check(request))
    except _EXPECTED as error:
        response = await error_response(request, error)
    except Exception as error:
        response = await error_response(request, error)
        await response(scope, receive, send)
        # As Starlette does: the server logs it.
        raise
    await response(scope, receive, send)


async def error_response(request: Request, error: Exception) -> Response:
    """The error in the form of the dialect that the path belongs to."""
    problem = _problem(error)
    if crossbar.is_crossbar_path(request.url.path):
        return crossbar.problem_response(request, problem)
    return responses.problem_response(request, problem)


def _problem(error: Exception) -> HTTPException:
    match error:
        case HTTPException():
            return error
        case TooLarge():
            return Problem(413, error.message, fields=error.fields)
        case Invalid():
            return Problem(400, error.message, fields=error.fields, kind="validation_error")
        case KindConflict():
            return Problem(400, str(error))
        case KeyRevoked():
            return Problem(401, str(error))
        case Unauthenticated():
            message = "the secret in Authorization is missing or not valid"
            fields = [("Authorization", "must be Bearer and the secret of an API key, or the admin token")]
            return Problem(401, message, fields=fields, headers={"www-authenticate": "Bearer"})
        case MissingScope():
            return Problem(403, str(error), fields=[("scopes", f"must include {error.scope}")])
        case StoreUnavailable():
            return responses.unavailable()
        case _:
            return responses.internal_error()
