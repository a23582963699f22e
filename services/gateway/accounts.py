"""Accounts, for the operator only (docs/protocols/events.md, section 1)."""

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_in, model_response
from services.gateway.context import context_of
from shared.model.api_keys import Account, new_id
from shared.model.errors import Invalid
from shared.store.api_keys import ApiKeys
from shared.wire.accounts import AccountBody, NewAccount, checked_name

_NEW_ACCOUNT = msgspec.json.Decoder(NewAccount)


async def create_account(request: Request) -> Response:
    context = context_of(request)
    await context.authenticator.require_operator(request)
    posted = await body_in(request, _NEW_ACCOUNT)
    return model_response(await new_account(context.stores.api_keys, posted), status=201)


async def new_account(api_keys: ApiKeys, posted: NewAccount) -> AccountBody:
    """Creates an account. Raises Invalid."""
    if posted.parent is not None and await api_keys.account(posted.parent) is None:
        raise Invalid("must be the id of an account", field="parent")
    account = Account(id=new_id(), name=checked_name(posted.name), parent=posted.parent, master=posted.master)
    await api_keys.create_account(account)
    return AccountBody(account.id, account.name, account.parent, master=account.master or UNSET)
