"""Attempts to deliver to a webhook, and the request to retry now, under /v1/channels/{channel}/deliveries.

docs/protocols/channels.md, section 8
"""

import re

from starlette.requests import Request

from services.gateway.channel_access import ONE_CHANNEL, OneChannel
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.openapi import in_query
from services.gateway.operations import Operation
from services.gateway.paths import in_path
from services.gateway.queries import one_of, page_limit
from shared.model.deliveries import AttemptOutcome
from shared.model.errors import Invalid, IsDisabled
from shared.runtime.http.responses import Problem
from shared.wire.channels import (
    MOST_DELIVERIES,
    DeliveriesBody,
    OneDeliveryBody,
    deliveries_body,
    one_delivery_body,
)

_PAGE = 100
_LONGEST_EVENT_ID = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@Operation(
    "GET /v1/channels/{channel}/deliveries",
    ONE_CHANNEL,
    parameters=[
        OF_ACCOUNT,
        in_query("after", "List older ones than this place: `next_after` of the last page."),
        in_query("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MOST_DELIVERIES}),
        in_query("outcome", "Only attempts that ended so.", {"enum": [*AttemptOutcome]}),
        in_query("event_id", "Only attempts with this event."),
    ],
)
async def get_deliveries(request: Request, one: OneChannel) -> DeliveriesBody:
    """Lists the last attempts to deliver to the webhook, newest first, 100 unless `limit` says otherwise.

    An API key's outlive its webhook.
    """
    query = request.query_params
    event_id, outcome = query.get("event_id", ""), None
    if "outcome" in query:
        outcome = AttemptOutcome(one_of([*AttemptOutcome], query["outcome"], "outcome"))
    if len(event_id) > _LONGEST_EVENT_ID or _CONTROL.search(event_id):
        raise Invalid("must be the id of an event", field="event_id")
    try:
        found, next_after = await context_of(request).stores.attempts.page(
            one.id,
            count=page_limit(query.get("limit"), usual=_PAGE, most=MOST_DELIVERIES),
            after=query.get("after", ""),
            outcome=None
            if outcome is None
            else AttemptOutcome(one_of([*AttemptOutcome], outcome, "outcome")),
            event_id=event_id,
        )
    except ValueError:
        raise Invalid("must be next_after of another page", field="after") from None
    return deliveries_body(found, next_after)


@Operation(
    "GET /v1/channels/{channel}/deliveries/{delivery}",
    ONE_CHANNEL,
    pattern="/v1/channels/{channel}/deliveries/{delivery:entry}",
    parameters=[OF_ACCOUNT],
)
async def get_delivery(request: Request, one: OneChannel) -> OneDeliveryBody:
    """Gets one attempt: of a failure also what was sent and answered, without secrets."""
    try:
        found = await context_of(request).stores.attempts.one(one.id, in_path(request, "delivery"))
    except ValueError:
        found = None
    if found is None:
        raise Problem(404, "the channel has no such attempt, or no longer")
    return one_delivery_body(found)


@Operation(
    "POST /v1/channels/{channel}/deliveries/retry",
    ONE_CHANNEL,
    status=202,
    errors=(409,),
    parameters=[OF_ACCOUNT],
)
async def retry_deliveries(request: Request, one: OneChannel) -> None:
    """Retries a failing webhook now."""
    try:
        is_webhook = await context_of(request).stores.webhooks.retry_now(one.id)
    except IsDisabled as error:
        raise Problem(409, str(error)) from None
    if not is_webhook:
        raise Problem(404, "the API key has no webhook" if one.by_api_key else "the channel is no webhook")
