"""A channel as it is now and its signing secret, under /v1/channels/{channel}.

By the id of an API key (32 hex) it is the view of the key's channel; by an id of a channel (`ch_…`) or a name
that of a channel of the account (docs/protocols/channels.md).
"""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.accounts import no_such_api_key
from services.gateway.bodies import model_response
from services.gateway.channel_access import ONE_CHANNEL, OneChannel, no_such_channel, present
from services.gateway.context import Context, context_of
from services.gateway.openapi import in_query, response, schema
from services.gateway.operations import Operation
from shared.clock import now_ms
from shared.model.account_channels import AccountChannel
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked
from shared.model.signing_secrets import SecretKind, new_secret
from shared.runtime.http.responses import Problem
from shared.wire.account_channels import AccountChannelBody, account_channel_body
from shared.wire.channels import ChannelBody, SigningSecretBody, channel_body
from shared.wire.models import Id

OF_ACCOUNT = in_query("account", "The account; only the operator names it.", schema(Id))


def shown_channel(
    context: Context, channel: AccountChannel, bindings: bytes | None = None
) -> AccountChannelBody:
    """The channel as it is now, with its bindings, in their stored form, or without."""
    lifetime_ms = context.stores.queue_limits.lifetime_ms
    return account_channel_body(channel, bindings, now_ms=now_ms(), lifetime_ms=lifetime_ms)


@Operation(
    "GET /v1/channels/{channel}",
    ONE_CHANNEL,
    successes={
        200: response(
            "The channel; by the id of an API key its view of it.",
            {"anyOf": [schema(AccountChannelBody), schema(ChannelBody)]},
        )
    },
    parameters=[OF_ACCOUNT],
)
async def get_channel_state(request: Request, one: OneChannel) -> Response:
    """Gets a channel as it is now, of any kind."""
    stores = context_of(request).stores
    if not one.by_api_key:
        channel = await present(request, one)
        bindings = await stores.account_channels.bindings(one.record)
        return model_response(shown_channel(context_of(request), channel, bindings))
    state = await stores.channels.state(one.id)
    if state is None:
        raise Problem(404, "the API key has no channel")
    failing = await stores.webhooks.failing(one.id) if state.kind is Kind.WEBHOOK else None
    return model_response(channel_body(state, failing))


@Operation(
    "GET /v1/channels/{channel}/signing-secret",
    ONE_CHANNEL,
    successes={
        200: response("As in Standard Webhooks.", SigningSecretBody, Cache_Control={"const": "no-store"})
    },
    parameters=[OF_ACCOUNT],
)
async def get_signing_secret(request: Request, one: OneChannel) -> Response:
    """Gets the newest HMAC secret that signs requests to the webhook. The first request creates it."""
    signing_secrets = context_of(request).stores.signing_secrets
    try:
        secrets = await signing_secrets.made(one.id, offered=new_secret())
    except KeyRevoked:
        raise no_such_api_key() if one.by_api_key else no_such_channel() from None
    text = next((each.text for each in secrets if each.kind is SecretKind.HMAC), None)
    if text is None:
        raise Problem(404, "requests are signed by Ed25519 alone: GET …/secrets has the public key")
    shown = model_response(SigningSecretBody(text))
    shown.headers["cache-control"] = "no-store"
    return shown
