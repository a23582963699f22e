"""API keys: made, shown, rotated and ended by the operator, or by the admins of an account for their own.

docs/protocols/events.md, section 1.
"""

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.authenticator import Administrator
from services.gateway.bodies import name_in, object_if_any, object_in, only
from services.gateway.context import Context, context_of
from shared.model.api_keys import ApiKey, Scope, hash_of, is_id, new_id, new_secret
from shared.model.errors import Invalid, KeyExpired, KeyRevoked, SecretsInUse
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem, json_response
from shared.store.api_keys import ApiKeys
from shared.wire.times import moment_ms, moment_text

PAGE = 1000
_OLD_SECRET_MS = 24 * 60 * 60 * 1000


async def create_api_key(request: Request) -> Response:
    context = context_of(request)
    admin = await context.authenticator.administrator(request)
    posted = await object_in(request)
    only(posted, {"name", "scopes", "expires_at"})
    account_id = await _account_of(context, admin, request)
    return json_response(await new_api_key(context.api_keys, account_id, posted), status=201)


async def list_api_keys(request: Request) -> Response:
    context = context_of(request)
    admin = await context.authenticator.administrator(request)
    account_id = await _account_of(context, admin, request)
    after = request.query_params.get("after", "")
    if after and not is_id(after):
        raise Invalid("must be the id of an API key", field="after")
    keys, next_after = await context.api_keys.of_account(account_id, after=after, count=PAGE)
    return json_response({"api_keys": [shown(key) for key in keys], "next_after": next_after})


async def get_api_key(request: Request) -> Response:
    context = context_of(request)
    admin = await context.authenticator.administrator(request)
    return json_response(shown(await _key_of(context, admin, request)))


async def delete_api_key(request: Request) -> Response:
    context = context_of(request)
    admin = await context.authenticator.administrator(request)
    key = await _key_of(context, admin, request)
    try:
        await context.api_keys.revoke(key)
    finally:
        context.authenticator.forget(key.id)
    return Response(status_code=204)


async def create_secret(request: Request) -> Response:
    """Rotation: a new secret, beside which the one in use stays valid for a while."""
    context = context_of(request)
    admin = await context.authenticator.administrator(request)
    posted = await object_if_any(request)
    only(posted, {"old_valid_until"})
    key = await _key_of(context, admin, request)
    try:
        return json_response(await new_secret_of(context.api_keys, key, posted), status=201)
    except KeyRevoked:
        raise _no_such_key() from None
    except SecretsInUse as error:
        until = moment_text(error.until_ms)
        raise Problem(409, f"two secrets of this API key are valid, the older until {until}") from None
    except KeyExpired as error:
        raise Problem(409, str(error)) from None
    finally:
        context.authenticator.forget(key.id)


async def new_api_key(api_keys: ApiKeys, account_id: str, posted: dict[str, Any]) -> dict[str, Any]:
    """Makes an API key from `{"name", "scopes", "expires_at"?}`; the only time its secret is told.

    Raises Invalid.
    """
    scopes = posted.get("scopes")
    if not isinstance(scopes, list) or not scopes or any(scope not in list(Scope) for scope in scopes):
        raise Invalid(f"must be an array of {', '.join(Scope)}", field="scopes")
    api_key_id = new_id()
    secret = new_secret(api_key_id)
    key = ApiKey(
        id=api_key_id,
        account_id=account_id,
        name=name_in(posted),
        scopes=frozenset(Scope(scope) for scope in scopes),
        created_at_ms=now_ms(),
        secret_hash=hash_of(secret),
        expires_at_ms=_future_ms(posted, "expires_at"),
    )
    await api_keys.create(key)
    return _with_secret(key, secret)


async def new_secret_of(api_keys: ApiKeys, key: ApiKey, posted: dict[str, Any]) -> dict[str, Any]:
    """Rotates a key by `{"old_valid_until"?}`; the only time the new secret is told.

    Raises Invalid, SecretsInUse, KeyExpired, KeyRevoked.
    """
    now = now_ms()
    at_once = posted.get("old_valid_until") == "now"
    old_until_ms = now if at_once else _future_ms(posted, "old_valid_until", or_now=True)
    if old_until_ms is None:
        old_until_ms = now + _OLD_SECRET_MS
    secret = new_secret(key.id)
    await api_keys.rotate(key, secret_hash=hash_of(secret), old_valid_until_ms=old_until_ms, now_ms=now)
    return _with_secret(replace(key, old_valid_until_ms=old_until_ms), secret)


def shown(key: ApiKey) -> dict[str, Any]:
    """An API key as it is shown: without secrets, with their state."""
    old_until_ms = key.old_secret_until_ms(now_ms=now_ms())
    return {
        "id": key.id,
        "account_id": key.account_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": moment_text(key.created_at_ms),
        "expires_at": None if key.expires_at_ms is None else moment_text(key.expires_at_ms),
        "old_secret_valid_until": None if old_until_ms is None else moment_text(old_until_ms),
    }


def _with_secret(key: ApiKey, secret: str) -> dict[str, Any]:
    return {"id": key.id, "secret": secret, **shown(key)}


def _future_ms(posted: dict[str, Any], field: str, *, or_now: bool = False) -> int | None:
    value = posted.get(field)
    if value is None:
        return None
    ms = moment_ms(value) if isinstance(value, str) else None
    if ms is None:
        wanted = "must be a time with its offset from UTC, as 2027-01-31T12:00:00Z"
        raise Invalid(f'{wanted}, or "now"' if or_now else wanted, field=field)
    if ms <= now_ms():
        raise Invalid("must be in the future", field=field)
    return ms


async def _account_of(context: Context, admin: Administrator, request: Request) -> str:
    account_id: str = request.path_params["account_id"]
    known = is_id(account_id) and admin.administers(account_id)
    if not known or await context.api_keys.account(account_id) is None:
        raise Problem(404, "there is no such account")
    return account_id


async def _key_of(context: Context, admin: Administrator, request: Request) -> ApiKey:
    api_key_id = request.path_params["api_key_id"]
    key = await context.api_keys.find(api_key_id) if is_id(api_key_id) else None
    if key is None or not admin.administers(key.account_id):
        raise _no_such_key()
    return key


def _no_such_key() -> Problem:
    return Problem(404, "there is no such API key")
