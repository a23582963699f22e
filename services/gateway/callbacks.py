"""The REST side of a webhook: /v2/notification/callback (docs/protocols/pelion.md, section 8)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of, model_response
from services.gateway.context import Context, context_of
from shared.model.api_keys import Scope
from shared.model.callbacks import Callback, new_signing_secret
from shared.model.channels import Kind
from shared.model.errors import KindConflict
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem
from shared.wire.pelion.callbacks import is_json, registration_in
from shared.wire.pelion.responses import webhook

_REASONS = {
    "address-refused": "address-refused: the host has a private or reserved address"
    " (NOTIFY_ALLOW_PRIVATE_CALLBACKS permits networks, for local tests)",
    "not-resolved": "not-resolved: DNS has no address of the host",
    "not-connected": "not-connected: the host accepts no connection",
    "tls-failed": "tls-failed: the certificate must be valid for the host",
    "closed": "closed: the connection was closed before a response",
    "timed-out": "timed-out: no response in time",
}


async def get_callback(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    state = await context.stores.channels.state(key.id)
    callback = await context.stores.channels.callback(key.id)
    if state is None or callback is None:
        raise Problem(404, "no callback has been registered")
    return model_response(webhook(callback, state.serialization))


async def put_callback(request: Request) -> Response:
    """Registers the URL after it has accepted the test request; otherwise changes nothing."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    if not is_json(request.headers.get("content-type", "")):
        fields = [("Content-Type", "must be application/json")]
        raise Problem(415, "the Content-Type must be application/json", fields=fields)
    wanted = registration_in(await body_of(request))
    await _check_kind(context, key.id)
    await _verify(context, key.id, wanted.callback)
    await context.stores.channels.put_webhook(
        key.account_id, key.id, wanted.callback, now_ms=now_ms(), serialization=wanted.serialization
    )
    return Response(status_code=204)


async def delete_callback(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.RECEIVE)
    if not await context.stores.channels.delete(key.account_id, key.id, kind=Kind.WEBHOOK):
        raise Problem(404, "no callback has been registered")
    return Response(status_code=204)


async def _check_kind(context: Context, api_key_id: str) -> None:
    """Spares the URL a test request that cannot succeed. `put_webhook` checks again, atomically."""
    state = await context.stores.channels.state(api_key_id)
    if state is not None and state.kind is not Kind.WEBHOOK:
        raise KindConflict(existing=state.kind)


async def _verify(context: Context, api_key_id: str, callback: Callback) -> None:
    secret = await context.stores.api_keys.signing_secret(api_key_id, offered=new_signing_secret())
    attempt = await context.endpoint_verifier.verify(api_key_id, callback, signing_secret=secret)
    if not attempt.accepted:
        why = (
            _REASONS.get(attempt.error, attempt.error) or f"the response was {attempt.status}, not 200 or 204"
        )
        message = f"the test request failed: {why}"
        raise Problem(400, f"url: {message}", fields=[("url", message)])
