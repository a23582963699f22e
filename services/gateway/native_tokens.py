"""POST /v1/tokens mints tokens for clients, DELETE /v1/sockets signs a client out.

docs/protocols/tokens.md, sections 4 and 5
"""

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import model_response
from services.gateway.channel_access import ChannelCaller, account_for
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.openapi import in_query, response
from services.gateway.operations import Access, Operation
from shared.authentication import require_scope
from shared.clock import now_ms
from shared.model.api_keys import Scope
from shared.model.errors import Invalid, MissingScope, NoSuchAccount, TooManyCutOffs
from shared.model.grants import LONGEST_SUBJECT
from shared.native_tokens import Claims
from shared.runtime.http.responses import Problem
from shared.wire.minted_tokens import DEFAULT_LIFETIME_S, MintedToken, NewToken, check_new
from shared.wire.native_tokens import check_subject
from shared.wire.times import moment_text


async def _minter(request: Request) -> ChannelCaller:
    """Raises MissingScope."""
    caller = ChannelCaller(await context_of(request).authenticator.caller(request))
    if caller.key is not None and caller.key.scopes.isdisjoint((Scope.TOKENS, Scope.ADMIN)):
        raise MissingScope(Scope.TOKENS)
    return caller


_MINTER = Access(_minter, ("adminToken", "apiKey"), (401, 403, 404, 429, 503))


@Operation(
    "POST /v1/tokens",
    _MINTER,
    status=201,
    successes={201: response("The token.", MintedToken, Cache_Control={"const": "no-store"})},
    parameters=[OF_ACCOUNT],
)
async def mint_token(request: Request, caller: ChannelCaller, posted: NewToken) -> Response:
    """Mints a token for one client, which allows no more than the caller may do."""
    account_id = await account_for(request, caller)
    check_new(posted)
    _check_scopes(caller, posted)
    claims = Claims(posted.sub, posted.read, posted.publish, posted.channels)
    try:
        token, until_ms = await context_of(request).stores.native_tokens.mint(
            account_id, claims, lifetime_s=posted.ttl_s or DEFAULT_LIFETIME_S, now_ms=now_ms()
        )
    except NoSuchAccount as error:
        raise Problem(404, str(error)) from None
    minted = model_response(MintedToken(token, moment_text(until_ms)), status=201)
    minted.headers["cache-control"] = "no-store"
    return minted


@Operation(
    "DELETE /v1/sockets",
    _MINTER,
    errors=(429,),
    parameters=[
        in_query("sub", "The subject of the tokens.", {"type": "string", "minLength": 1}),
        OF_ACCOUNT,
    ],
)
async def sign_out(request: Request, caller: ChannelCaller) -> None:
    """Closes what a subject has opened by tokens, and refuses its tokens that were issued until now."""
    account_id = await account_for(request, caller)
    if (subject := request.query_params.get("sub")) is None:
        raise Invalid(f"is missing: 1 to {LONGEST_SUBJECT} bytes of the subject", field="sub")
    check_subject(subject)
    try:
        await context_of(request).stores.native_tokens.keys.cut_off(account_id, subject)
    except NoSuchAccount as error:
        raise Problem(404, str(error)) from None
    except TooManyCutOffs as error:
        until = moment_text(error.until_ms)
        message = (
            f"too many subjects were signed out in the last 24 hours: wait until {until}, or delete the"
            " token key that has signed their tokens"
        )
        retry_after_s = max(1, (error.until_ms - now_ms()) // 1000)
        raise Problem(429, message, headers={"retry-after": str(retry_after_s)}) from None


def _check_scopes(caller: ChannelCaller, posted: NewToken) -> None:
    """An admin may do all of it: it may make an API key with any scope. Raises MissingScope."""
    if caller.key is None or Scope.ADMIN in caller.key.scopes:
        return
    needed = {Scope.RECEIVE: posted.read, Scope.PUBLISH: posted.publish, Scope.CHANNELS: posted.channels}
    for scope, wanted in needed.items():
        if wanted:
            require_scope(caller.key.scopes, scope)
