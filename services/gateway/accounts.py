"""Accounts, for the operator alone (docs/protocols/events.md, section 1)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import name_in, object_in, only
from services.gateway.context import context_of
from shared.model.api_keys import Account, is_id, new_id
from shared.model.errors import Invalid
from shared.runtime.http.responses import json_response
from shared.store.api_keys import ApiKeys


async def create_account(request: Request) -> Response:
    context = context_of(request)
    await context.authenticator.require_operator(request)
    posted = await object_in(request)
    only(posted, {"name", "parent", "master"})
    return json_response(await new_account(context.api_keys, posted), status=201)


async def new_account(api_keys: ApiKeys, posted: dict[str, Any]) -> dict[str, Any]:
    """Makes an account from `{"name", "parent"?, "master"?}`. Raises Invalid."""
    parent = posted.get("parent")
    if parent is not None and (
        not isinstance(parent, str) or not is_id(parent) or await api_keys.account(parent) is None
    ):
        raise Invalid("must be the id of an account", field="parent")
    master = posted.get("master", False)
    if not isinstance(master, bool):
        raise Invalid("must be true or false", field="master")
    account = Account(id=new_id(), name=name_in(posted), parent=parent, master=master)
    await api_keys.create_account(account)
    told = {"master": True} if master else {}
    return {"id": account.id, "name": account.name, "parent": account.parent, **told}
