"""Receipts: what became of an event that was published with `"receipt": true` (GET /v1/events/{id})."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from services.gateway.context import Context, context_of
from services.gateway.operations import PUBLISHER, Operation
from shared.model.api_keys import ApiKey
from shared.model.events import Event
from shared.runtime.http.responses import Problem
from shared.wire.receipts import ReceiptBody, receipt_body


# The publisher's event ids may contain slashes.
@Operation("GET /v1/events/{event_id}", PUBLISHER, errors=(404,), pattern="/v1/events/{event_id:path}")
async def get_receipt(request: Request, key: ApiKey) -> ReceiptBody:
    """Gets the receipt of an event that asked for one."""
    receipt = await context_of(request).stores.receipts.find(key.account_id, request.path_params["event_id"])
    if receipt is None:
        raise Problem(404, 'no receipt of this event; publish with "receipt": true, and ask within an hour')
    return receipt_body(receipt)


def open_receipts(
    context: Context,
    account_id: str,
    events: Sequence[Event],
    channels: Mapping[str, Sequence[int]],
    *,
    now_ms: int,
) -> list[Coroutine[Any, Any, None]]:
    """The writes that open the requested receipts; await them together with the appends.

    `channels` has the indexes of the events that each channel gets.
    """
    by_event: dict[int, list[str]] = {index: [] for index, event in enumerate(events) if event.receipt}
    if not by_event:
        return []
    for api_key_id, indexes in channels.items():
        for index in indexes:
            if index in by_event:
                by_event[index].append(api_key_id)
    return [
        context.stores.receipts.open(account_id, events[index], channels=wanting, now_ms=now_ms)
        for index, wanting in by_event.items()
    ]
