"""DELETE /v1/accounts/{id}: ends an account with everything in it (docs/protocols/events.md, section 1)."""

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.audit import record
from services.gateway.context import context_of
from services.gateway.openapi import in_header, in_query, response
from services.gateway.operations import OPERATOR, Operation
from services.gateway.paths import in_path
from shared.model.api_keys import is_id
from shared.model.audit import Action
from shared.model.errors import HasApiKeys, HasChildren, Invalid, NoSuchAccount, StoreUnavailable
from shared.runtime.http.request_head import members
from shared.runtime.http.responses import Problem
from shared.store import keyspace
from shared.store.account_deletion import AccountDeletion

logger = logging.getLogger(__name__)

# Then the response is a 202, and the deletion goes on.
_WAIT_S = 10.0
_under_way: dict[tuple[int, str], asyncio.Task[bool]] = {}


@Operation(
    "DELETE /v1/accounts/{account_id}",
    OPERATOR,
    errors=(404, 409),
    parameters=[
        in_query("cascade", "true: also with API keys.", {"enum": ["true", "false"]}),
        in_header("Prefer", "respond-async: respond at once."),
    ],
    successes={
        202: response("Its API keys are refused, and it is being freed. Repeat the request to wait for it."),
        204: response("Nothing of it is left."),
    },
)
async def delete_account(request: Request, _: None) -> Response:
    """Deletes an account with its API keys, channels, queues and bindings; closes its sockets."""
    context = context_of(request)
    account_id: str = in_path(request, "account_id")
    deletion = context.stores.account_deletion
    try:
        if not is_id(account_id):
            raise NoSuchAccount
        account = await context.stores.api_keys.account(account_id)
        await deletion.begin(account_id, cascade=_is_to_cascade(request))
    except NoSuchAccount as error:
        raise Problem(404, str(error)) from None
    except HasChildren as error:
        raise Problem(409, f"{error}; delete those first") from None
    except HasApiKeys as error:
        message = f"{error}; delete those first, or all of it with the account: ?cascade=true"
        raise Problem(409, message) from None
    if account is not None:
        # Not a repetition of the request.
        await record(
            request, Action.ACCOUNT_DELETED, of=keyspace.ACCOUNTS, target=account_id, name=account.name
        )
    freeing = _freeing(deletion, account_id)
    preferences = members(request.scope["headers"], b"prefer")
    preferred = {each.partition(b";")[0].strip().lower() for each in preferences}
    wait_s = 0.0 if b"respond-async" in preferred else _WAIT_S
    await asyncio.wait([freeing], timeout=wait_s)
    context.authenticator.forget_account(account_id)
    is_freed = freeing.done() and freeing.result()
    return Response(status_code=204 if is_freed else 202)


def _is_to_cascade(request: Request) -> bool:
    given = request.query_params.get("cascade", "false")
    if given not in ("true", "false"):
        raise Invalid("must be true or false", field="cascade")
    return given == "true"


def _freeing(deletion: AccountDeletion, account_id: str) -> asyncio.Task[bool]:
    """The task that frees the account, in this gateway."""
    key = (id(deletion), account_id)
    task = _under_way.get(key)
    if task is None:
        task = _under_way[key] = asyncio.create_task(_free(deletion, account_id))
        task.add_done_callback(lambda _: _under_way.pop(key, None))
    return task


async def _free(deletion: AccountDeletion, account_id: str) -> bool:
    try:
        await deletion.finish(account_id)
    except StoreUnavailable as error:
        # The reaper goes on with it, or the next request.
        facts = {"account": account_id, "why": str(error)}
        logger.warning("account.deletion-cut-short", extra={"facts": facts})
        return False
    logger.info("account.deleted", extra={"facts": {"account": account_id}})
    return True
