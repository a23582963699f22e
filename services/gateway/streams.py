"""Streams: which topics are retained, and retained events by their ids.

docs/protocols/streams.md
"""

from starlette.requests import Request

from services.gateway.audit import record
from services.gateway.channel_access import MANAGER, ChannelCaller, account_for
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.operations import Operation
from services.gateway.paths import in_path
from services.gateway.receipts import OF_SOURCE
from shared.model.audit import Action
from shared.model.errors import NoSuchAccount
from shared.runtime.http.responses import Problem
from shared.wire.streams import (
    RetainedBody,
    StreamRuleBody,
    StreamRulesBody,
    retained_body,
    rules_body,
    rules_in,
)

NOT_RETAINED = (
    "no such event is retained: no rule named its topic, it is no longer kept, or it is a CloudEvent of"
    " another source than was given"
)


@Operation("GET /v1/streams", MANAGER, parameters=[OF_ACCOUNT])
async def get_stream_rules(request: Request, caller: ChannelCaller) -> list[StreamRuleBody]:
    """Gets the rules of retained topics; [] without any."""
    account_id = await account_for(request, caller)
    return rules_body(await context_of(request).stores.streams.rules(account_id))


@Operation("PUT /v1/streams", MANAGER, parameters=[OF_ACCOUNT])
async def put_stream_rules(request: Request, caller: ChannelCaller, posted: StreamRulesBody) -> None:
    """Replaces the rules of retained topics, in force from the next publish; [] removes them."""
    account_id = await account_for(request, caller)
    streams = context_of(request).stores.streams
    rules = rules_in(posted, streams.limits.keep)
    try:
        await streams.put_rules(account_id, rules)
    except NoSuchAccount as error:
        raise Problem(404, str(error)) from None
    await record(request, Action.STREAMS_PUT, of=account_id, target=account_id, by=caller.id)


# The publisher's event ids may contain slashes.
@Operation(
    "GET /v1/history/{event_id}",
    MANAGER,
    pattern="/v1/history/{event_id:path}",
    parameters=[OF_ACCOUNT, OF_SOURCE],
)
async def get_retained_event(request: Request, caller: ChannelCaller) -> RetainedBody:
    """Gets an event from the stream of its topic; the newest of its id."""
    account_id = await account_for(request, caller)
    stores = context_of(request).stores
    retained = await stores.streams.find(
        account_id, in_path(request, "event_id"), source=request.query_params.get("source", "")
    )
    if retained is None:
        raise Problem(404, NOT_RETAINED)
    to = retained.event.to
    to_native = to is not None and await stores.routing.native(account_id, to) is not None
    return retained_body(retained, to_native=to_native)
