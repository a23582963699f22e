"""Quotas and usage of accounts (docs/protocols/events.md, section 1)."""

from dataclasses import replace

from msgspec import UNSET
from starlette.requests import Request

from services.gateway.accounts import account_of
from services.gateway.audit import record
from services.gateway.authenticator import Administrator
from services.gateway.context import Context, context_of
from services.gateway.operations import ADMIN, OPERATOR, Operation
from services.gateway.paths import in_path
from shared.model.api_keys import Account, is_id
from shared.model.audit import Action
from shared.model.errors import NoSuchAccount
from shared.model.quotas import Quota
from shared.runtime.http.responses import Problem
from shared.store import keyspace
from shared.wire.accounts import checked_name
from shared.wire.quotas import (
    AccountChanges,
    AccountUsageBody,
    AccountWithQuotasBody,
    UsageBody,
    changes_in,
    key_quotas_body,
    quotas_body,
    rate_usage,
)


@Operation("GET /v1/accounts/{account_id}", ADMIN)
async def get_account(request: Request, admin: Administrator) -> AccountWithQuotasBody:
    """Gets an account with its quotas."""
    return await _account_body(context_of(request), await account_of(request, admin))


@Operation("PATCH /v1/accounts/{account_id}", OPERATOR, errors=(404,))
async def change_account(request: Request, _: None, posted: AccountChanges) -> AccountWithQuotasBody:
    """Changes an account's name and quotas.

    Quotas are in force within a second; null returns to the installation's.
    """
    context = context_of(request)
    account_id: str = in_path(request, "account_id")
    account = await context.stores.api_keys.account(account_id) if is_id(account_id) else None
    if account is None:
        raise Problem(404, "there is no such account")
    if posted.name is not None:
        try:
            await context.stores.api_keys.rename_account(account, checked_name(posted.name))
        except NoSuchAccount as error:
            raise Problem(404, str(error)) from None
        account = replace(account, name=posted.name)
    await context.stores.quotas.change(
        account_id, quotas=changes_in(posted.quotas), key_quotas=changes_in(posted.key_quotas)
    )
    await record(request, Action.ACCOUNT_CHANGED, of=keyspace.ACCOUNTS, target=account.id, name=account.name)
    return await _account_body(context, account)


@Operation("GET /v1/accounts/{account_id}/usage", ADMIN)
async def get_usage(request: Request, admin: Administrator) -> AccountUsageBody:
    """Gets what an account uses of its quotas."""
    account_id = (await account_of(request, admin)).id
    stored_bytes = context_of(request).stores.stored_bytes
    store = context_of(request).stores.quotas
    quotas, _ = await store.of(account_id)
    buckets = await store.buckets(account_id)
    events, size, copies = (
        rate_usage(bucket.rate or 0, burst_s=bucket.burst_s, left=bucket.left) for bucket in buckets
    )
    counts = await store.counts(account_id)
    return AccountUsageBody(
        events_per_s=events,
        bytes_per_s=size,
        copies_per_s=copies,
        sockets=UsageBody(quotas.sockets, await store.sockets(account_id)),
        channels=UsageBody(quotas.channels, counts[Quota.CHANNELS]),
        bindings=UsageBody(quotas.bindings, counts[Quota.BINDINGS]),
        stored_bytes=UsageBody(quotas.stored_bytes, await stored_bytes.used(account_id)),
    )


async def _account_body(context: Context, account: Account) -> AccountWithQuotasBody:
    quotas, key_quotas = await context.stores.quotas.of(account.id)
    return AccountWithQuotasBody(
        id=account.id,
        name=account.name,
        parent=account.parent,
        master=account.master or UNSET,
        quotas=quotas_body(quotas),
        key_quotas=key_quotas_body(key_quotas),
    )
