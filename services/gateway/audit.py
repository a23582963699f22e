"""Audit logs (docs/protocols/events.md, section 1): records what administrators change, and GET /v1/audit."""

import logging
import re

from starlette.requests import Request

from services.gateway.authenticator import Administrator
from services.gateway.context import context_of
from services.gateway.openapi import in_query, schema
from services.gateway.operations import ADMIN, Operation
from shared.clock import now_ms
from shared.model.api_keys import is_id
from shared.model.audit import Action, Change
from shared.model.errors import Invalid, StoreUnavailable
from shared.runtime.http.responses import Problem, request_id_of
from shared.store import keyspace
from shared.wire.audit import AuditBody, audit_body
from shared.wire.models import Id

logger = logging.getLogger(__name__)

_PAGE = 100
_ENTRY_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,19}")


async def record(
    request: Request, action: Action, *, of: str, target: str, name: str = "", by: str = ""
) -> None:
    """Adds a change that was made to the audit log `of` an account, or of `keyspace.ACCOUNTS`.

    `by` is the caller's API key, '' for the operator. The response does not depend on it: the change is made.
    """
    context = context_of(request)
    address = context.authenticator.address_of(request)
    change = Change(action, by, target, name, address, request_id_of(request.scope))
    try:
        await context.stores.audit.add(change, of=of)
    except StoreUnavailable as error:
        facts = {"action": action, "account": of, "target": target, "by": by or "operator", "why": str(error)}
        logger.warning("audit.lost", extra={"facts": facts})


@Operation(
    "GET /v1/audit",
    ADMIN,
    errors=(404,),
    parameters=[
        in_query(
            "account",
            "The account. Its own for an admin's API key; without it the operator gets the "
            "log of the accounts themselves.",
            schema(Id),
        ),
        in_query("before", "List what is older than this entry: `next_before` of the last page."),
    ],
)
async def list_changes(request: Request, admin: Administrator) -> AuditBody:
    """Lists who changed what, newest first, at most 100 entries."""
    account = request.query_params.get("account", admin.account_id)
    if account is not None:
        stores = context_of(request).stores
        if not (is_id(account) and admin.administers(account) and await stores.api_keys.account(account)):
            raise Problem(404, "there is no such account")
    before = request.query_params.get("before", "")
    if before and not _ENTRY_ID.fullmatch(before):
        raise Invalid("must be next_before of another page", field="before")
    entries, next_before = await context_of(request).stores.audit.page(
        of=account or keyspace.ACCOUNTS, before=before, count=_PAGE, now_ms=now_ms()
    )
    return audit_body(entries, next_before)
