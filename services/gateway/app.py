"""The routes of a gateway, and how its errors become answers."""

from collections.abc import Awaitable, Callable

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
    subscriptions,
)
from services.gateway.context import Context
from services.gateway.publish import publish
from shared.model.errors import Invalid, KeyRevoked, KindConflict, StoreUnavailable, TooLarge
from shared.runtime.http import responses
from shared.runtime.http.responses import Problem

_Answer = Callable[[Request, Exception], Awaitable[Response]]
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
    # An id may be any text of the publisher's, with slashes too.
    Route("/v1/events/{event_id:path}", receipts.get_receipt, methods=["GET"]),
    Route("/v1/bindings", bindings.get_bindings, methods=["GET"]),
    Route("/v1/bindings", bindings.put_bindings, methods=["PUT"]),
    Route("/v1/bindings", bindings.delete_bindings, methods=["DELETE"]),
    Route("/v1/channels/{api_key_id}", channel_views.get_channel_view, methods=["GET"]),
    Route("/v1/channels/{api_key_id}/signing-secret", channel_views.get_signing_secret, methods=["GET"]),
    Route("/v1/channels/{api_key_id}/deliveries", channel_views.get_deliveries, methods=["GET"]),
    Route("/v1/channels/{api_key_id}/deliveries/retry", channel_views.retry_deliveries, methods=["POST"]),
    Route("/v2/subscriptions", subscriptions.get_subscriptions, methods=["GET"]),
    Route("/v2/subscriptions", subscriptions.put_subscriptions, methods=["PUT"]),
    Route("/v2/subscriptions", subscriptions.delete_subscriptions, methods=["DELETE"]),
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
    Route("/v2/websockets/{socket_id}", crossbar.get_socket_of_nobody, methods=["GET"]),
    Route("/v2/accounts/{account_id}/websockets", crossbar.get_sockets, methods=["GET"]),
    Route("/v2/accounts/{account_id}/websockets/{socket_id}", crossbar.get_socket, methods=["GET"]),
    Route("/v2/account/websockets", crossbar.get_sockets, methods=["GET"]),
    Route("/v2/account/websockets/{socket_id}", crossbar.get_socket, methods=["GET"]),
    Route("/v2/api_auth", crossbar.put_api_auth, methods=["PUT"]),
]


def gateway_app(context: Context, *, more: list[BaseRoute]) -> ASGIApp:
    """The gateway's app. `more` are routes that are not its own, health for one."""
    app = Starlette(routes=[*ROUTES, *more], exception_handlers=_ANSWERS)
    app.state.context = context

    async def by_shortcut(scope: Scope, receive: Receive, send: Send) -> None:
        # The way through the framework costs about as much as the publish itself.
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
    except Exception as error:
        answer = next(_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)
        response = await answer(request, error)
        await response(scope, receive, send)
        if answer is _failed:
            raise
    else:
        await response(scope, receive, send)


async def _problem_answer(request: Request, error: Exception) -> Response:
    """Each dialect has its own form of an error, told by the path."""
    if crossbar.answers_at(request.url.path):
        return crossbar.problem_response(request, error)
    return responses.problem_response(request, error)


def _answer(status: int, *, kind: str = "") -> _Answer:
    async def answer(request: Request, error: Exception) -> Response:
        fields = error.fields if isinstance(error, Invalid) else []
        return await _problem_answer(request, Problem(status, str(error), fields=fields, kind=kind))

    return answer


async def _unavailable(request: Request, _: Exception) -> Response:
    message = "the store cannot take this now; try again"
    return await _problem_answer(request, Problem(503, message, headers={"retry-after": "1"}))


async def _failed(request: Request, _: Exception) -> Response:
    """What nobody foresaw; it is logged by whoever hears of it next."""
    return await _problem_answer(request, Problem(500, "something went wrong here; it was logged"))


_ANSWERS: dict[type[Exception], _Answer] = {
    HTTPException: _problem_answer,
    TooLarge: _answer(413),
    Invalid: _answer(400, kind="validation_error"),
    KindConflict: _answer(400),
    KeyRevoked: _answer(401),
    StoreUnavailable: _unavailable,
    Exception: _failed,
}
