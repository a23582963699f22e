"""The routes of a gateway, and the responses to its errors."""

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from services.gateway import (  # noqa: F401 - each adds its operations
    account_channels,
    account_deletion,
    accounts,
    bindings,
    channel_views,
    channels,
    client_certificates,
    crossbar,
    deliveries,
    documented,
    fetches,
    native_tokens,
    one_stream,
    publish,
    quotas,
    receipts,
    replays,
    session_pushes,
    signing_secrets,
    streams,
    tickets,
    token_keys,
    webhook_tests,
)
from services.gateway.asyncapi import asyncapi
from services.gateway.context import Context
from services.gateway.openapi import document
from services.gateway.operations import ANYONE, OPERATIONS, Operation
from services.problems import EXPECTED, problem_of
from shared.runtime.http import responses
from shared.runtime.http.app import app_of


@Operation("GET /openapi.json", ANYONE, name="document", successes={200: {"type": "object"}})
async def get_document(_: Request, __: None) -> Response:
    """Gets this document."""
    return Response(_DOCUMENT, media_type="application/json", headers={"cache-control": "no-cache"})


@Operation("GET /asyncapi.json", ANYONE, name="asyncDocument", successes={200: {"type": "object"}})
async def get_async_document(_: Request, __: None) -> Response:
    """Gets the document of what connections of the edges carry, as AsyncAPI 3.0."""
    return Response(_ASYNC_DOCUMENT, media_type="application/json", headers={"cache-control": "no-cache"})


ROUTES: list[BaseRoute] = [operation.route() for operation in OPERATIONS if operation.handler]
DOCUMENT = document(documented.WEBHOOKS)
ASYNC_DOCUMENT = asyncapi()
_DOCUMENT, _ASYNC_DOCUMENT = orjson.dumps(DOCUMENT), orjson.dumps(ASYNC_DOCUMENT)


def gateway_app(context: Context, *, more: list[BaseRoute]) -> ASGIApp:
    """The gateway's app. `more` are routes that other modules serve, such as health."""
    handlers = dict.fromkeys((*EXPECTED, Exception), error_response)
    app = app_of([*ROUTES, *more], error_handlers=handlers)
    app.state.context = context
    return app


async def error_response(request: Request, error: Exception) -> Response:
    """The error in the form of the dialect that the path belongs to."""
    problem = problem_of(error)
    if crossbar.is_crossbar_path(request.scope["path"]):
        return crossbar.problem_response(request, problem)
    return responses.problem_response(request, problem)
