"""The routes of a gateway, and the responses to its errors."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import (
    accounts,
    api_keys,
    bindings,
    callbacks,
    channel_views,
    channels,
    crossbar,
    openapi,
    receipts,
    resources,
    session_pushes,
)
from services.gateway.context import Context
from services.gateway.publish import publish
from shared.model.bindings import Source
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

_EXPECTED = (
    *(HTTPException, Invalid, KindConflict, KeyRevoked),
    *(MissingScope, StoreUnavailable, Unauthenticated),
)
_EVENTS = "/v1/events"

ROUTES: list[BaseRoute] = [
    Route("/openapi.json", openapi.get_document, methods=["GET"]),
    Route("/v1/accounts", accounts.create_account, methods=["POST"]),
    Route("/v1/accounts/{account_id}/api-keys", api_keys.create_api_key, methods=["POST"]),
    Route("/v1/accounts/{account_id}/api-keys", api_keys.list_api_keys, methods=["GET"]),
    Route("/v1/api-keys/{api_key_id}", api_keys.get_api_key, methods=["GET"]),
    Route("/v1/api-keys/{api_key_id}", api_keys.delete_api_key, methods=["DELETE"]),
    Route("/v1/api-keys/{api_key_id}/secrets", api_keys.create_secret, methods=["POST"]),
    Route(_EVENTS, publish, methods=["POST"]),
    # The publisher's event ids may contain slashes.
    Route("/v1/events/{event_id:path}", receipts.get_receipt, methods=["GET"]),
    Route("/v1/bindings", bindings.get_handler(Source.TOPICS), methods=["GET"]),
    Route("/v1/bindings", bindings.put_handler(Source.TOPICS), methods=["PUT"]),
    Route("/v1/bindings", bindings.delete_handler(Source.TOPICS), methods=["DELETE"]),
    Route("/v1/channels/{api_key_id}", channel_views.get_channel_view, methods=["GET"]),
    Route("/v1/channels/{api_key_id}/signing-secret", channel_views.get_signing_secret, methods=["GET"]),
    Route("/v1/channels/{api_key_id}/deliveries", channel_views.get_deliveries, methods=["GET"]),
    Route("/v1/channels/{api_key_id}/deliveries/retry", channel_views.retry_deliveries, methods=["POST"]),
    Route("/v2/subscriptions", bindings.get_handler(Source.PRESUBSCRIPTIONS), methods=["GET"]),
    Route("/v2/subscriptions", bindings.put_handler(Source.PRESUBSCRIPTIONS), methods=["PUT"]),
    Route("/v2/subscriptions", bindings.delete_handler(Source.PRESUBSCRIPTIONS), methods=["DELETE"]),
    Route(f"{resources.PREFIX}{{rest:device}}", resources.get_resource, methods=["GET"]),
    Route(f"{resources.PREFIX}{{rest:resource}}", resources.put_resource, methods=["PUT"]),
    Route(f"{resources.PREFIX}{{rest:device}}", resources.delete_resource, methods=["DELETE"]),
    Route("/v2/notification/websocket", channels.get_websocket, methods=["GET"]),
    Route("/v2/notification/websocket", channels.put_websocket, methods=["PUT"]),
    Route("/v2/notification/websocket", channels.delete_websocket, methods=["DELETE"]),
    Route("/v2/notification/callback", callbacks.get_callback, methods=["GET"]),
    Route("/v2/notification/callback", callbacks.put_callback, methods=["PUT"]),
    Route("/v2/notification/callback", callbacks.delete_callback, methods=["DELETE"]),
    Route("/api/v1/websocket/session", session_pushes.push_to_session, methods=["POST"]),
    Route("/v2/notification/channel", channels.get_channel, methods=["GET"]),
    Route("/v2/websockets", crossbar.get_bindings, methods=["GET"]),
    Route("/v2/websockets/{socket_id}", crossbar.get_socket_without_account, methods=["GET"]),
    Route("/v2/accounts/{account_id}/websockets", crossbar.get_sockets, methods=["GET"]),
    Route("/v2/accounts/{account_id}/websockets/{socket_id}", crossbar.get_socket, methods=["GET"]),
    Route("/v2/account/websockets", crossbar.get_sockets, methods=["GET"]),
    Route("/v2/account/websockets/{socket_id}", crossbar.get_socket, methods=["GET"]),
    Route("/v2/api_auth", crossbar.put_api_auth, methods=["PUT"]),
]


def gateway_app(context: Context, *, more: list[BaseRoute]) -> ASGIApp:
    """The gateway's app. `more` are routes that other modules serve, such as health."""
    handlers = dict.fromkeys((*_EXPECTED, Exception), _error_handler)
    app = Starlette(routes=[*ROUTES, *more], exception_handlers=handlers)
    app.state.context = context

    async def by_shortcut(scope: Scope, receive: Receive, send: Send) -> None:
        # Routing and middleware cost about as much as the publish itself.
        if scope["type"] == "http" and scope["path"] == _EVENTS and scope["method"] == "POST":
            scope["app"] = app
            await _publish(scope, receive, send)
        else:
            await app(scope, receive, send)

    return by_shortcut


async def _publish(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        response = await publish(request)
    except _EXPECTED as error:
        response = error_response(request, error)
    except Exception as error:
        await error_response(request, error)(scope, receive, send)
        # As Starlette does: the server logs it.
        raise
    await response(scope, receive, send)


async def _error_handler(request: Request, error: Exception) -> Response:
    return error_response(request, error)


def error_response(request: Request, error: Exception) -> Response:
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
