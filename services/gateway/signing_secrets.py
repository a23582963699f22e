"""The signing secrets of a webhook: made, imported, listed and ended (docs/protocols/webhooks.md).

They belong to the API key or to the native channel, as GET /v1/channels/{channel}/signing-secret shows them.
"""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.accounts import no_such_api_key
from services.gateway.audit import record
from services.gateway.bodies import model_response
from services.gateway.channel_access import ONE_CHANNEL, OneChannel, no_such_channel, present
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.openapi import response
from services.gateway.operations import Operation
from services.gateway.paths import in_path
from shared.model.account_channels import shown_id
from shared.model.audit import Action
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked, NewestSecret, TooManySecrets
from shared.model.signing_secrets import DEFAULT_OVERLAP_S, MOST_SECRETS, SecretKind, new_secret
from shared.runtime.http.responses import Problem
from shared.wire.signatures import imported_secret
from shared.wire.signing_secrets import (
    MadeSigningSecret,
    NewSigningSecret,
    SigningSecretsBody,
    made_body,
    secrets_body,
)
from shared.wire.times import moment_text


@Operation(
    "POST /v1/channels/{channel}/secrets",
    ONE_CHANNEL,
    status=201,
    errors=(409,),
    successes={201: response("The new secret.", MadeSigningSecret, Cache_Control={"const": "no-store"})},
    parameters=[OF_ACCOUNT],
)
async def make_signing_secret(request: Request, one: OneChannel, posted: NewSigningSecret) -> Response:
    """Makes or imports a signing secret of a webhook; those before it sign too, for `overlap_s`."""
    if posted.secret is None:
        action, text = Action.SIGNING_CREATED, new_secret(posted.kind or SecretKind.HMAC)
    else:
        action, text = Action.SIGNING_IMPORTED, imported_secret(posted.secret, posted.kind)
    await _check_kind(request, one)
    overlap_s = DEFAULT_OVERLAP_S if posted.overlap_s is None else posted.overlap_s
    signing_secrets = context_of(request).stores.signing_secrets
    try:
        made, *_ = await signing_secrets.add(one.id, text, overlap_ms=overlap_s * 1000)
    except KeyRevoked:
        raise _absent(one) from None
    except TooManySecrets as error:
        until = moment_text(error.until_ms)
        message = f"the webhook has {MOST_SECRETS} signing secrets: end one, or wait until {until}"
        raise Problem(409, message) from None
    await _record(request, action, one, made.id)
    shown = model_response(made_body(made), status=201)
    shown.headers["cache-control"] = "no-store"
    return shown


@Operation("GET /v1/channels/{channel}/secrets", ONE_CHANNEL, parameters=[OF_ACCOUNT])
async def list_signing_secrets(request: Request, one: OneChannel) -> SigningSecretsBody:
    """Lists the signing secrets of a webhook that sign now, newest first, without the secrets themselves."""
    try:
        return secrets_body(await context_of(request).stores.signing_secrets.read(one.id))
    except KeyRevoked:
        raise _absent(one) from None


@Operation(
    "DELETE /v1/channels/{channel}/secrets/{secret}", ONE_CHANNEL, errors=(409,), parameters=[OF_ACCOUNT]
)
async def end_signing_secret(request: Request, one: OneChannel) -> None:
    """Ends a signing secret before its time. The newest one ends only by a newer one."""
    secret_id = in_path(request, "secret")
    try:
        has_ended = await context_of(request).stores.signing_secrets.end(one.id, secret_id)
    except NewestSecret:
        raise Problem(409, "the newest secret cannot be ended: make another one, with overlap_s 0") from None
    if not has_ended:
        raise Problem(404, "there is no such signing secret, or it has ended")
    await _record(request, Action.SIGNING_ENDED, one, secret_id)


async def _check_kind(request: Request, one: OneChannel) -> None:
    """An API key has its secrets before its webhook. Raises Problem."""
    if one.record.is_native and (channel := await present(request, one)).kind is not Kind.WEBHOOK:
        raise Problem(409, f"the channel is no webhook but a {channel.kind}: nothing would be signed")


def _absent(one: OneChannel) -> Problem:
    return no_such_api_key() if one.by_api_key else no_such_channel()


async def _record(request: Request, action: Action, one: OneChannel, secret_id: str) -> None:
    """With the id of the channel as target, and that of the secret as name."""
    await record(
        request, action, of=one.record.account_id, target=shown_id(one.id), name=secret_id, by=one.caller.id
    )
