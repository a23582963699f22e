"""The keys that verify an account's tokens: made or registered, listed and deleted.

docs/protocols/tokens.md, section 1
"""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.audit import record
from services.gateway.bodies import model_response
from services.gateway.channel_access import ChannelCaller, account_for
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.openapi import response
from services.gateway.operations import Access, Operation
from services.gateway.paths import in_path
from shared.authentication import require_scope
from shared.clock import now_ms
from shared.model.api_keys import Scope
from shared.model.audit import Action
from shared.model.errors import NoSuchAccount, TooManyTokenKeys
from shared.model.token_keys import MOST_KEYS, account_in
from shared.runtime.http.responses import Problem
from shared.wire.token_keys import (
    MadeTokenKey,
    NewTokenKey,
    TokenKeysBody,
    made_token_key,
    material_in,
    token_keys_body,
)


async def _administrator(request: Request) -> ChannelCaller:
    """Raises MissingScope."""
    caller = ChannelCaller(await context_of(request).authenticator.caller(request))
    if caller.key is not None:
        require_scope(caller.key.scopes, Scope.ADMIN)
    return caller


_KEY_ADMIN = Access(_administrator, ("adminToken", "apiKey"), (401, 403, 404, 429, 503))


@Operation(
    "POST /v1/token-keys",
    _KEY_ADMIN,
    status=201,
    errors=(409,),
    successes={201: response("The new key.", MadeTokenKey, Cache_Control={"const": "no-store"})},
    parameters=[OF_ACCOUNT],
)
async def create_token_key(request: Request, caller: ChannelCaller, posted: NewTokenKey) -> Response:
    """Makes a secret, or takes a secret or a public key, that verifies tokens of the account."""
    account_id = await account_for(request, caller)
    is_made = posted.secret is None and posted.public_key is None
    keys = context_of(request).stores.native_tokens.keys
    try:
        made = await keys.add(account_id, posted.algorithm, material_in(posted), now_ms=now_ms())
    except NoSuchAccount as error:
        raise Problem(404, str(error)) from None
    except TooManyTokenKeys:
        raise Problem(409, f"the account has {MOST_KEYS} token keys: delete one first") from None
    action = Action.TOKENS_KEY_CREATED if is_made else Action.TOKENS_KEY_IMPORTED
    await record(request, action, of=account_id, target=made.kid, name=made.algorithm, by=caller.id)
    shown = model_response(made_token_key(made), status=201)
    shown.headers["cache-control"] = "no-store"
    return shown


@Operation("GET /v1/token-keys", _KEY_ADMIN, parameters=[OF_ACCOUNT])
async def list_token_keys(request: Request, caller: ChannelCaller) -> TokenKeysBody:
    """Lists the keys that verify tokens of the account, the oldest first, without the secrets."""
    account_id = await account_for(request, caller)
    return token_keys_body(await context_of(request).stores.native_tokens.keys.of_account(account_id))


@Operation("DELETE /v1/token-keys/{kid}", _KEY_ADMIN, parameters=[OF_ACCOUNT])
async def delete_token_key(request: Request, caller: ChannelCaller) -> None:
    """Deletes a key: its tokens are refused at once, and what they opened ends within a second."""
    account_id = await account_for(request, caller)
    kid = in_path(request, "kid")
    if account_in(kid) != account_id:
        raise Problem(404, "there is no such token key")
    # Also when it is gone: a gateway may have died before edges learned of it.
    if await context_of(request).stores.native_tokens.keys.drop(kid):
        await record(request, Action.TOKENS_KEY_DELETED, of=account_id, target=kid, by=caller.id)
