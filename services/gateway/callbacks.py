"""The REST side of a webhook: /v2/notification/callback (docs/protocols/pelion.md, section 8)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of
from services.gateway.context import Context, context_of
from shared.model.api_keys import Scope
from shared.model.callbacks import Callback, new_signing_secret
from shared.model.channels import Kind
from shared.model.errors import KindConflict
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem, json_response
from shared.wire.pelion.answers import webhook
from shared.wire.pelion.callbacks import is_json, registration_in


async def get_callback(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    state = await context.channels.state(key.id)
    callback = await context.channels.callback(key.id)
    if state is None or callback is None:
        raise Problem(404, "no callback has been registered")
    return json_response(webhook(callback, state.serialization))


async def put_callback(request: Request) -> Response:
    """Registers a URL that takes the test request, or changes nothing."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    if not is_json(request.headers.get("content-type", "")):
        fields = [("Content-Type", "must be application/json")]
        raise Problem(415, "the body must be JSON, and its Content-Type say so", fields=fields)
    wanted = registration_in(await body_of(request))
    await _check_kind(context, key.id)
    await _try(context, key.id, wanted.callback)
    await context.channels.put_webhook(
        key.account_id, key.id, wanted.callback, now_ms=now_ms(), serialization=wanted.serialization
    )
    return Response(status_code=204)


async def delete_callback(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    if not await context.channels.delete(key.account_id, key.id, kind=Kind.WEBHOOK):
        raise Problem(404, "there is no callback")
    return Response(status_code=204)


async def _check_kind(context: Context, api_key_id: str) -> None:
    """Spares a URL the test request that could change nothing. What counts is judged when it is put."""
    state = await context.channels.state(api_key_id)
    if state is not None and state.kind is not Kind.WEBHOOK:
        raise KindConflict(existing=state.kind)


async def _try(context: Context, api_key_id: str, callback: Callback) -> None:
    secret = await context.api_keys.signing_secret(api_key_id, offered=new_signing_secret())
    attempt = await context.endpoint_verifier.verify(api_key_id, callback, signing_secret=secret)
    if not attempt.accepted:
        why = attempt.error or f"it answered {attempt.status}"
        message = f"did not take the test request with 200 or 204: {why}"
        raise Problem(400, f"url: {message}", fields=[("url", message)])
