"""Accounts, by the operator; API keys, by admins of the account too (docs/protocols/events.md, section 1)."""

from dataclasses import replace

from starlette.requests import Request

from services.gateway.audit import record
from services.gateway.authenticator import Administrator
from services.gateway.context import context_of
from services.gateway.openapi import in_query, schema
from services.gateway.operations import ADMIN, OPERATOR, Operation
from services.gateway.paths import in_path
from shared.clock import now_ms
from shared.model.api_keys import Account, ApiKey, hash_of, is_id, new_id, new_secret
from shared.model.audit import Action
from shared.model.errors import Invalid, KeyExpired, KeyRevoked, NoSuchAccount, SecretsInUse
from shared.model.quotas import Quota
from shared.runtime.http.responses import Problem
from shared.store import keyspace
from shared.store.api_keys import ApiKeys
from shared.wire.accounts import (
    AccountBody,
    AccountsBody,
    ApiKeyBody,
    ApiKeysBody,
    ApiKeyWithSecretBody,
    NewAccount,
    NewApiKey,
    NewSecret,
    account_body,
    api_key_body,
    api_key_with_secret,
    checked_name,
)
from shared.wire.models import Id
from shared.wire.times import moment_ms, moment_text

PAGE = 1000
_OLD_SECRET_MS = 24 * 60 * 60 * 1000


@Operation("POST /v1/accounts", OPERATOR, status=201)
async def create_account(request: Request, _: None, posted: NewAccount) -> AccountBody:
    """Creates an account."""
    account = await new_account(context_of(request).stores.api_keys, posted)
    await record(request, Action.ACCOUNT_CREATED, of=keyspace.ACCOUNTS, target=account.id, name=account.name)
    return account


@Operation(
    "GET /v1/accounts",
    OPERATOR,
    parameters=[
        in_query("name_prefix", "Only accounts whose names begin so."),
        in_query("after", "List from after this place: `next_after` of the last page."),
    ],
)
async def list_accounts(request: Request, _: None) -> AccountsBody:
    """Lists accounts by their names, at most 1,000."""
    prefix, after = (request.query_params.get(name, "") for name in ("name_prefix", "after"))
    api_keys = context_of(request).stores.api_keys
    try:
        accounts, next_after = await api_keys.accounts(prefix, after=after, count=PAGE)
    except ValueError:
        raise Invalid("must be next_after of another page", field="after") from None
    return AccountsBody([account_body(account) for account in accounts], next_after)


async def new_account(api_keys: ApiKeys, posted: NewAccount) -> AccountBody:
    """Creates an account. Raises Invalid."""
    name, is_master = checked_name(posted.name), bool(posted.master)
    account = Account(id=new_id(), name=name, parent=posted.parent, master=is_master)
    try:
        await api_keys.create_account(account)
    except NoSuchAccount:
        raise Invalid("must be the id of an account", field="parent") from None
    return account_body(account)


@Operation("POST /v1/accounts/{account_id}/api-keys", ADMIN, status=201, errors=(429,))
async def create_api_key(request: Request, admin: Administrator, posted: NewApiKey) -> ApiKeyWithSecretBody:
    """Creates an API key. The secret is returned once, here."""
    account_id = (await account_of(request, admin)).id
    await context_of(request).stores.quotas.check(account_id, Quota.CHANNELS)
    key = await new_api_key(context_of(request).stores.api_keys, account_id, posted)
    await _record(request, Action.API_KEY_CREATED, admin, key)
    return key


@Operation(
    "GET /v1/accounts/{account_id}/api-keys",
    ADMIN,
    parameters=[in_query("after", "List from after this id.", schema(Id))],
)
async def list_api_keys(request: Request, admin: Administrator) -> ApiKeysBody:
    """Lists an account's API keys by their ids, at most 1,000."""
    account_id = (await account_of(request, admin)).id
    after = request.query_params.get("after", "")
    if after and not is_id(after):
        raise Invalid("must be the id of an API key", field="after")
    api_keys = context_of(request).stores.api_keys
    keys, next_after = await api_keys.of_account(account_id, after=after, count=PAGE)
    now = now_ms()
    return ApiKeysBody([api_key_body(key, now_ms=now) for key in keys], next_after)


@Operation("GET /v1/api-keys/{api_key_id}", ADMIN)
async def get_api_key(request: Request, admin: Administrator) -> ApiKeyBody:
    """Gets an API key."""
    return api_key_body(await _key_of(request, admin), now_ms=now_ms())


@Operation("DELETE /v1/api-keys/{api_key_id}", ADMIN)
async def delete_api_key(request: Request, admin: Administrator) -> None:
    """Revokes an API key: deletes its channel and bindings, closes its socket."""
    context = context_of(request)
    try:
        key = await _key_of(request, admin)
    except Problem:
        # A gateway may have died after it revoked the key, and before gateways and edges noticed.
        if is_id(api_key_id := in_path(request, "api_key_id")):
            await context.stores.api_keys.end_again(api_key_id)
        raise
    try:
        await context.stores.api_keys.revoke(key)
    finally:
        context.authenticator.forget(key.id)
    await _record(request, Action.API_KEY_REVOKED, admin, key)


@Operation("POST /v1/api-keys/{api_key_id}/secrets", ADMIN, status=201, errors=(409,))
async def rotate_api_key(request: Request, admin: Administrator, posted: NewSecret) -> ApiKeyWithSecretBody:
    """Creates a second secret; the current one stays valid for a while."""
    context = context_of(request)
    key = await _key_of(request, admin)
    try:
        rotated = await new_secret_of(context.stores.api_keys, key, posted)
    except KeyRevoked:
        raise no_such_api_key() from None
    except SecretsInUse as error:
        until = moment_text(error.until_ms)
        message = f"two secrets of this API key are valid, the older until {until}; rotate again after that"
        raise Problem(409, message) from None
    except KeyExpired as error:
        raise Problem(409, f"{error}; create a new one") from None
    finally:
        context.authenticator.forget(key.id)
    await _record(request, Action.API_KEY_ROTATED, admin, key)
    return rotated


async def _record(
    request: Request, action: Action, admin: Administrator, key: ApiKey | ApiKeyWithSecretBody
) -> None:
    await record(request, action, of=key.account_id, target=key.id, name=key.name, by=admin.api_key_id)


async def new_api_key(api_keys: ApiKeys, account_id: str, posted: NewApiKey) -> ApiKeyWithSecretBody:
    """Creates an API key. Its secret is returned once, here. Raises Invalid."""
    api_key_id = new_id()
    secret = new_secret(api_key_id)
    now = now_ms()
    key = ApiKey(
        id=api_key_id,
        account_id=account_id,
        name=checked_name(posted.name),
        scopes=frozenset(posted.scopes),
        created_at_ms=now,
        secret_hash=hash_of(secret),
        expires_at_ms=None if posted.expires_at is None else _future_ms(posted.expires_at, "expires_at"),
    )
    await api_keys.create(key)
    return api_key_with_secret(key, secret, now_ms=now)


async def new_secret_of(api_keys: ApiKeys, key: ApiKey, posted: NewSecret) -> ApiKeyWithSecretBody:
    """Gives the key a new secret, which is returned once, here.

    Raises Invalid, SecretsInUse, KeyExpired, KeyRevoked.
    """
    now = now_ms()
    match posted.old_valid_until:
        case None:
            old_until_ms = now + _OLD_SECRET_MS
        case "now":
            # Not the time: Redis' may be some milliseconds behind, and would leave it valid that long.
            old_until_ms = 0
        case text:
            old_until_ms = _future_ms(text, "old_valid_until", more=', or "now"')
    secret = new_secret(key.id)
    await api_keys.rotate(key, secret_hash=hash_of(secret), old_valid_until_ms=old_until_ms)
    return api_key_with_secret(replace(key, old_valid_until_ms=old_until_ms), secret, now_ms=now)


def no_such_api_key() -> Problem:
    return Problem(404, "there is no such API key")


def _future_ms(text: str, field: str, *, more: str = "") -> int:
    ms = moment_ms(text)
    if ms is None:
        raise Invalid(f"must be a time with its offset from UTC, as 2027-01-31T12:00:00Z{more}", field=field)
    if ms <= now_ms():
        raise Invalid("must be in the future", field=field)
    return ms


async def account_of(request: Request, admin: Administrator) -> Account:
    """The account in the path. Raises Problem(404) when the caller can see none."""
    account_id: str = in_path(request, "account_id")
    if is_id(account_id) and admin.administers(account_id):
        account = await context_of(request).stores.api_keys.account(account_id)
        if account is not None:
            return account
    raise Problem(404, "there is no such account")


async def _key_of(request: Request, admin: Administrator) -> ApiKey:
    api_key_id = in_path(request, "api_key_id")
    key = await context_of(request).stores.api_keys.find(api_key_id) if is_id(api_key_id) else None
    if key is None or not admin.administers(key.account_id):
        raise no_such_api_key()
    return key
