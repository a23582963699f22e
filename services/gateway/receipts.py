"""Receipts: what became of an event that was published with `"receipt": true` (GET /v1/events/{id})."""

from starlette.requests import Request

from services.gateway.context import context_of
from services.gateway.openapi import in_query
from services.gateway.operations import PUBLISHER, Operation
from services.gateway.paths import in_path
from shared.model.api_keys import ApiKey
from shared.runtime.http.responses import Problem
from shared.wire.receipts import ReceiptBody, receipt_body

OF_SOURCE = in_query("source", "The `source` of a CloudEvent: its id alone names another event.")


# The publisher's event ids may contain slashes.
@Operation(
    "GET /v1/events/{event_id}",
    PUBLISHER,
    errors=(404,),
    pattern="/v1/events/{event_id:path}",
    parameters=[OF_SOURCE],
)
async def get_receipt(request: Request, key: ApiKey) -> ReceiptBody:
    """Gets the receipt of an event that asked for one."""
    receipt = await context_of(request).stores.receipts.find(
        key.account_id, in_path(request, "event_id"), source=request.query_params.get("source", "")
    )
    if receipt is None:
        raise Problem(404, 'no receipt of this event; publish with "receipt": true, and ask within an hour')
    return receipt_body(receipt)
