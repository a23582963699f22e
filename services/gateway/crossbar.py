"""Crossbar: Kazoo's HTTP API (docs/protocols/kazoo.md, section 2).

Every response is one of Crossbar's envelopes. `problem_response` writes the errors of all paths below
Crossbar's nouns, unknown ones too.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import OF_STRANGERS, body_in
from services.gateway.context import context_of
from services.gateway.operations import ANYONE, Access, Operation
from services.gateway.paths import in_path
from shared.authentication import require_scope
from shared.clock import now_ms
from shared.model.api_keys import Principal, Scope, id_in, is_id
from shared.model.errors import Unauthenticated
from shared.model.sessions import Dialect, Session
from shared.runtime.http.responses import Problem, methods_at, request_id_of
from shared.tokens import is_token_like
from shared.version import VERSION
from shared.wire.kazoo.bindings import listing
from shared.wire.kazoo.crossbar import EnvelopeContext, error_body, socket_object, success_body
from shared.wire.models import Closed, Id
from shared.wire.pelion.handshake import bearer

NOUNS = ("/v2/websockets", "/v2/accounts", "/v2/account", "/v2/api_auth")
_BINDINGS = listing()
_OBJECT: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_SECRET_LENGTH = 64

# An error's symbolic name, and the message in its data; empty for the problem's own.
_ERRORS = {
    400: ("bad_request", ""),
    401: ("invalid_credentials", "invalid credentials"),
    403: ("forbidden", ""),
    404: ("not_found", "not found"),
    405: ("invalid_method", "method not allowed"),
    413: ("payload_too_large", ""),
    429: ("too_many_requests", ""),
    500: ("internal_error", ""),
    503: ("could not reach websockets tracking", ""),
}


class Socket(Closed):
    """An open socket of the Kazoo dialect."""

    bindings: list[str]
    websocket_session_id: Id
    timestamp: Annotated[int, Meta(description="When it was opened, in seconds since the year 0.")]
    destination: Annotated[str, Meta(description="The edge that holds it.")]
    source: Annotated[str, Meta(description="The client's address.")]
    name: str | UnsetType = UNSET
    metadata: Any = UNSET


class AccountOfToken(Struct):
    account_id: Id
    account_name: str


class NewTokenData(Struct):
    api_key: Annotated[str, Meta(min_length=_SECRET_LENGTH)]


class NewToken(Struct):
    data: NewTokenData


class CrossbarProblem(Problem):
    """An error with its own symbolic name and data."""

    def __init__(self, status: int, name: str, data: Mapping[str, Any]) -> None:
        super().__init__(status, name)
        self.name = name
        self.data = data


async def _principal(request: Request, secret: str) -> Principal:
    """The caller, by a token or a secret. Raises Unauthenticated, MissingScope, Problem (429)."""
    if not secret:
        raise Unauthenticated
    context = context_of(request)
    principal = await context.authenticator.look_up(
        request, secret, lambda: context.stores.principals.authenticate(secret, now_ms=now_ms())
    )
    if principal is None:
        raise Unauthenticated
    require_scope(principal.scopes, Scope.RECEIVE)
    return principal


_BY_TOKEN = Access(
    lambda request: _principal(request, _token_in(request)),
    ("authToken", "authTokenInQuery", "apiKey"),
)


@Operation("GET /v2/websockets", ANYONE, successes={200: dict[str, list[str]]})
async def list_websocket_bindings(request: Request, _: None) -> Response:
    """Lists the bindings that a socket can have, by module."""
    return _success(request, _BINDINGS)


@Operation(
    "GET /v2/accounts/{account_id}/websockets", _BY_TOKEN, successes={200: list[Socket]}, errors=(404,)
)
@Operation(
    "GET /v2/account/websockets",
    _BY_TOKEN,
    name="listOwnSockets",
    summary="Lists the open sockets of the caller's account",
    successes={200: list[Socket]},
)
async def list_sockets(request: Request, principal: Principal) -> Response:
    """Lists the open sockets of an account and of the caller's own."""
    accounts = await _accounts(request, principal)
    sessions = context_of(request).stores.sessions
    by_id = {each.id: each for account in accounts for each in await sessions.of_account(account)}
    return _success(request, [socket_object(each) for each in by_id.values() if _is_listed(each)])


@Operation(
    "GET /v2/accounts/{account_id}/websockets/{socket_id}", _BY_TOKEN, successes={200: Socket}, errors=(404,)
)
@Operation(
    "GET /v2/account/websockets/{socket_id}",
    _BY_TOKEN,
    name="getOwnSocket",
    summary="Gets an open socket of the caller's account",
    successes={200: Socket},
    errors=(404,),
)
async def get_socket(request: Request, principal: Principal) -> Response:
    """Gets an open socket."""
    accounts = await _accounts(request, principal)
    socket_id: str = in_path(request, "socket_id")
    session = await context_of(request).stores.sessions.find(socket_id) if is_id(socket_id) else None
    if session is None or session.account_id not in accounts or not _is_listed(session):
        raise _no_such(socket_id)
    return _success(request, socket_object(session))


@Operation("GET /v2/websockets/{socket_id}", _BY_TOKEN)
async def get_socket_without_account(_: Request, __: Principal) -> Response:
    """Always forbidden, as in Kazoo: a socket belongs to an account."""
    raise Problem(403, "forbidden")


@Operation(
    "PUT /v2/api_auth",
    ANYONE,
    successes={201: AccountOfToken},
    errors=(400, 401, 403, 429, 503),
    body=NewToken,
)
async def create_token(request: Request, _: None) -> Response:
    """Exchanges an API key's secret for a token of an hour, `auth_token` in the envelope."""
    context = context_of(request)
    posted = (await body_in(request, _OBJECT, OF_STRANGERS)).get("data")
    secret = _secret_in(posted if isinstance(posted, dict) else {})
    # `Principals` would take a token too; here only a secret counts.
    principal = await _principal(request, secret if id_in(secret) else "")
    account = await context.stores.api_keys.account(principal.account_id)
    token = await context.stores.principals.token_for(principal, now_ms=now_ms())
    data = {
        "account_id": principal.account_id,
        "account_name": account.name if account else "",
        "apps": [],
        "is_reseller": False,
        "language": "en-US",
        "reseller_id": (account.parent if account else None) or principal.account_id,
    }
    body = success_body(data, replace(_envelope(request), auth_token=token))
    return Response(body, 201, {"cache-control": "no-store"}, media_type="application/json")


def is_crossbar_path(path: str) -> bool:
    return any(path == noun or path.startswith(f"{noun}/") for noun in NOUNS)


def problem_response(request: Request, error: HTTPException) -> Response:
    """The response to an error, ours or the framework's, in Crossbar's form."""
    name, usual = _ERRORS.get(error.status_code, ("error", ""))
    data: Mapping[str, Any] = {"message": usual or error.detail}
    if isinstance(error, CrossbarProblem):
        name, data = error.name, error.data
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:
        headers["allow"] = ", ".join(methods_at(request))
    if error.status_code == 401:
        headers["www-authenticate"] = "Bearer"
    body = error_body(error.status_code, name, data, _envelope(request))
    return Response(body, error.status_code, headers, media_type="application/json")


async def _accounts(request: Request, principal: Principal) -> list[str]:
    """The account in the path, if the principal may see it, and the principal's own."""
    context = context_of(request)
    is_named = "account_id" in request.path_params
    account_id = in_path(request, "account_id") if is_named else principal.account_id
    if account_id == principal.account_id:
        return [account_id]
    if not is_id(account_id):
        message = f"invalid account_id '{account_id[:100]}'"
        raise CrossbarProblem(404, "bad identifier", {"message": message})
    if await context.stores.api_keys.account(account_id) is None:
        raise _no_such(account_id)
    if not await context.stores.principals.may_listen(principal, account_id):
        raise Problem(403, "forbidden")
    return [account_id, principal.account_id]


def _no_such(identifier: str) -> CrossbarProblem:
    return CrossbarProblem(404, "bad_identifier", {"message": "bad identifier", "cause": identifier[:100]})


def _is_listed(session: Session) -> bool:
    # Never list Cognism sessions: their id is the permission to push to them.
    return session.dialect is Dialect.KAZOO


def _secret_in(posted: dict[str, Any]) -> str:
    """The API key's secret in the body. Raises CrossbarProblem in the form of Kazoo's schema errors."""
    secret = posted.get("api_key")
    if secret is None:
        raise _invalid("required", {"message": "Field is required but missing", "value": "api_key"})
    if not isinstance(secret, str):
        raise _invalid("type", {"message": "Value did not match type(s): string", "target": "string"})
    if len(secret) < _SECRET_LENGTH:
        message = f"String must be at least {_SECRET_LENGTH} characters"
        raise _invalid("minLength", {"message": message, "target": _SECRET_LENGTH})
    return secret


def _invalid(rule: str, verdict: Mapping[str, Any]) -> CrossbarProblem:
    return CrossbarProblem(400, "validation failed", {"api_key": {rule: verdict}})


def _token_in(request: Request) -> str:
    headers, query = request.headers, request.query_params
    sent = headers.get("x-auth-token") or query.get("auth_token")
    return sent or bearer(headers.get("authorization", "")) or ""


def _success(request: Request, data: Any) -> Response:
    return Response(success_body(data, _envelope(request)), media_type="application/json")


def _envelope(request: Request) -> EnvelopeContext:
    token = _token_in(request)
    pretty = (request.headers.get("x-pretty-print"), request.query_params.get("pretty_print"))
    return EnvelopeContext(
        request_id=request_id_of(request.scope),
        node=context_of(request).replica,
        version=VERSION,
        now_ms=now_ms(),
        # Kazoo echoes the token. Never echo a secret.
        auth_token=token if is_token_like(token) else None,
        pretty="true" in pretty,
    )
