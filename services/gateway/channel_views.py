"""Our own view of a channel, whatever its kind: /v1/channels/{api_key_id} (docs/protocols/channels.md)."""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import context_of
from shared.model.callbacks import new_signing_secret
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked
from shared.runtime.http.responses import Problem, json_response
from shared.wire.channels import channel_body, deliveries_body


async def get_channel_view(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    state = await context.channels.state(key.id)
    if state is None:
        raise Problem(404, "the API key has no channel")
    failing = await context.webhooks.failing(key.id) if state.kind is Kind.WEBHOOK else None
    return json_response(channel_body(state, failing))


async def get_signing_secret(request: Request) -> Response:
    """The secret that signs what is sent to the API key's webhook; made when it is first asked for."""
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    try:
        secret = await context.api_keys.signing_secret(key.id, offered=new_signing_secret())
    except KeyRevoked:
        raise Problem(404, "there is no such API key") from None
    answer = json_response({"signing_secret": secret})
    answer.headers["cache-control"] = "no-store"
    return answer


async def get_deliveries(request: Request) -> Response:
    """The last attempts, also those of a webhook that has ended: that is when one wants to see them."""
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    return json_response(deliveries_body(await context.webhooks.deliveries(key.id)))


async def retry_deliveries(request: Request) -> Response:
    context = context_of(request)
    key = await context.authenticator.receiver(request, request.path_params["api_key_id"])
    if not await context.webhooks.retry_now(key.id):
        raise Problem(404, "the API key has no webhook")
    return Response(status_code=202)
