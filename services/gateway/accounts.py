"""Accounts, for the operator only (docs/protocols/events.md, section 1)."""

from msgspec import UNSET
from starlette.requests import Request

from services.gateway.context import context_of
from services.gateway.operations import OPERATOR, Operation
from shared.model.api_keys import Account, new_id
from shared.model.errors import Invalid
from shared.store.api_keys import ApiKeys
from shared.wire.accounts import AccountBody, NewAccount, checked_name


@Operation("POST /v1/accounts", OPERATOR, status=201)
async def create_account(request: Request, _: None, posted: NewAccount) -> AccountBody:
    """Creates an account."""
    return await new_account(context_of(request).stores.api_keys, posted)


async def new_account(api_keys: ApiKeys, posted: NewAccount) -> AccountBody:
    """Creates an account. Raises Invalid."""
    if posted.parent is not None and await api_keys.account(posted.parent) is None:
        raise Invalid("must be the id of an account", field="parent")
    account = Account(id=new_id(), name=checked_name(posted.name), parent=posted.parent, master=posted.master)
    await api_keys.create_account(account)
    return AccountBody(account.id, account.name, account.parent, master=account.master or UNSET)
