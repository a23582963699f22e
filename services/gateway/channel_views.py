"""Our own view of a channel, whatever its kind: /v1/channels/{api_key_id} (docs/protocols/channels.md)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.api_keys import no_such_api_key
from services.gateway.bodies import model_response
from services.gateway.context import context_of
from shared.model.callbacks import new_signing_secret
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked
from shared.runtime.http.responses import Problem
from shared.wire.channels import SigningSecretBody, channel_body, deliveries_body


async def get_channel_view(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    state = await context.stores.channels.state(key.id)
    if state is None:
        raise Problem(404, "the API key has no channel")
    failing = await context.stores.webhooks.failing(key.id) if state.kind is Kind.WEBHOOK else None
    return model_response(channel_body(state, failing))


async def get_signing_secret(request: Request) -> Response:
    """The secret that signs requests to the API key's webhook. The first request creates it."""
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    try:
        secret = await context.stores.api_keys.signing_secret(key.id, offered=new_signing_secret())
    except KeyRevoked:
        raise no_such_api_key() from None
    response = model_response(SigningSecretBody(secret))
    response.headers["cache-control"] = "no-store"
    return response


async def get_deliveries(request: Request) -> Response:
    """The last attempts, also those of a deleted webhook."""
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    return model_response(deliveries_body(await context.stores.webhooks.deliveries(key.id)))


async def retry_deliveries(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    if not await context.stores.webhooks.retry_now(key.id):
        raise Problem(404, "the API key has no webhook")
    return Response(status_code=202)
