"""Our own view of a channel, whatever its kind: /v1/channels/{api_key_id} (docs/protocols/channels.md)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.accounts import no_such_api_key
from services.gateway.bodies import model_response
from services.gateway.context import context_of
from services.gateway.openapi import response
from services.gateway.operations import KEY_IN_PATH, Operation
from shared.model.api_keys import ApiKey
from shared.model.callbacks import new_signing_secret
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked
from shared.runtime.http.responses import Problem
from shared.wire.channels import ChannelBody, DeliveriesBody, SigningSecretBody, channel_body, deliveries_body


@Operation("GET /v1/channels/{api_key_id}", KEY_IN_PATH)
async def get_channel_state(request: Request, key: ApiKey) -> ChannelBody:
    """Gets the state of the API key's channel, of any kind."""
    stores = context_of(request).stores
    state = await stores.channels.state(key.id)
    if state is None:
        raise Problem(404, "the API key has no channel")
    failing = await stores.webhooks.failing(key.id) if state.kind is Kind.WEBHOOK else None
    return channel_body(state, failing)


@Operation(
    "GET /v1/channels/{api_key_id}/signing-secret",
    KEY_IN_PATH,
    successes={
        200: response("As in Standard Webhooks.", SigningSecretBody, Cache_Control={"const": "no-store"})
    },
)
async def get_signing_secret(request: Request, key: ApiKey) -> Response:
    """Gets the secret that signs requests to the API key's webhook. The first request creates it."""
    api_keys = context_of(request).stores.api_keys
    try:
        secret = await api_keys.signing_secret(key.id, offered=new_signing_secret())
    except KeyRevoked:
        raise no_such_api_key() from None
    shown = model_response(SigningSecretBody(secret))
    shown.headers["cache-control"] = "no-store"
    return shown


@Operation("GET /v1/channels/{api_key_id}/deliveries", KEY_IN_PATH)
async def get_deliveries(request: Request, key: ApiKey) -> DeliveriesBody:
    """Lists the last attempts to deliver to its webhook, newest first, also those of a deleted webhook."""
    return deliveries_body(await context_of(request).stores.webhooks.deliveries(key.id))


@Operation("POST /v1/channels/{api_key_id}/deliveries/retry", KEY_IN_PATH, status=202)
async def retry_deliveries(request: Request, key: ApiKey) -> None:
    """Retries a failing webhook now."""
    if not await context_of(request).stores.webhooks.retry_now(key.id):
        raise Problem(404, "the API key has no webhook")
