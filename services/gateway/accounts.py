"""Accounts and API keys, for the operator (docs/protocols/events.md)."""

import time
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import object_in
from services.gateway.context import context_of
from shared.model.api_keys import Account, ApiKey, Scope, hash_of, is_id, new_id, new_secret
from shared.model.errors import Invalid
from shared.runtime.answers import Problem, json_answer
from shared.store.api_keys import ApiKeys

_MAX_NAME = 255


async def create_account(request: Request) -> Response:
    context = context_of(request)
    context.proof.require_admin(request)
    posted = await object_in(request)
    _only(posted, {"name", "parent"})
    return json_answer(await new_account(context.api_keys, posted), status=201)


async def create_api_key(request: Request) -> Response:
    context = context_of(request)
    context.proof.require_admin(request)
    posted = await object_in(request)
    _only(posted, {"name", "scopes"})
    account_id = request.path_params["account_id"]
    if not is_id(account_id) or await context.api_keys.account(account_id) is None:
        raise Problem(404, "there is no such account")
    return json_answer(await new_api_key(context.api_keys, account_id, posted), status=201)


async def delete_api_key(request: Request) -> Response:
    context = context_of(request)
    context.proof.require_admin(request)
    api_key_id = request.path_params["api_key_id"]
    key = await context.api_keys.find(api_key_id) if is_id(api_key_id) else None
    if key is None:
        raise Problem(404, "there is no such API key")
    try:
        await context.api_keys.revoke(key)
    finally:
        context.proof.forget(api_key_id)
    return Response(status_code=204)


async def new_account(api_keys: ApiKeys, posted: dict[str, Any]) -> dict[str, Any]:
    """Makes an account from `{"name", "parent"?}`. Raises Invalid."""
    parent = posted.get("parent")
    if parent is not None and (
        not isinstance(parent, str) or not is_id(parent) or await api_keys.account(parent) is None
    ):
        raise Invalid("must be the id of an account", field="parent")
    account = Account(id=new_id(), name=_name(posted), parent=parent)
    await api_keys.create_account(account)
    return {"id": account.id, "name": account.name, "parent": account.parent}


async def new_api_key(api_keys: ApiKeys, account_id: str, posted: dict[str, Any]) -> dict[str, Any]:
    """Makes an API key from `{"name", "scopes"}`; the only time its secret is told. Raises Invalid."""
    scopes = posted.get("scopes")
    if not isinstance(scopes, list) or not scopes or any(scope not in list(Scope) for scope in scopes):
        raise Invalid(f"must be an array of {', '.join(Scope)}", field="scopes")
    api_key_id = new_id()
    secret = new_secret(api_key_id)
    key = ApiKey(
        id=api_key_id,
        account_id=account_id,
        name=_name(posted),
        scopes=frozenset(Scope(scope) for scope in scopes),
        created_at_ms=time.time_ns() // 1_000_000,
        secret_hash=hash_of(secret),
    )
    await api_keys.create(key)
    created_at = datetime.fromtimestamp(key.created_at_ms / 1000, UTC)
    return {
        "id": key.id,
        "secret": secret,
        "account_id": account_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _name(posted: dict[str, Any]) -> str:
    name = posted.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise Invalid(f"must be a string of 1 to {_MAX_NAME} printable characters", field="name")
    return name


def _only(posted: dict[str, Any], names: set[str]) -> None:
    unknown = posted.keys() - names
    if unknown:
        raise Invalid("there is no such field", field=min(unknown)[:100])
