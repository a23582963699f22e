"""GET /v1/events/{id}: what became of an event that was published with `"receipt": true`."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import Context, context_of
from shared.model.api_keys import Scope
from shared.model.events import Event
from shared.runtime.http.responses import Problem, json_response
from shared.wire.receipts import receipt_body


async def get_receipt(request: Request) -> Response:
    """Any publisher of the account may ask."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.PUBLISH)
    receipt = await context.receipts.find(key.account_id, request.path_params["event_id"])
    if receipt is None:
        raise Problem(404, "there is no receipt of such an event; it is kept for an hour, if it is asked for")
    return json_response(receipt_body(receipt))


def opened_receipts(
    context: Context,
    account_id: str,
    events: Sequence[Event],
    wanted: Mapping[str, Sequence[int]],
    *,
    now_ms: int,
) -> list[Coroutine[Any, Any, None]]:
    """What writes the receipts that are asked for, to be awaited with the appends.

    `wanted` are the channels, each with the places of the events that it gets.
    """
    channels: dict[int, list[str]] = {index: [] for index, event in enumerate(events) if event.receipt}
    if not channels:
        return []
    for api_key_id, which in wanted.items():
        for index in which:
            if index in channels:
                channels[index].append(api_key_id)
    return [
        context.receipts.open(account_id, events[index], channels=told, now_ms=now_ms)
        for index, told in channels.items()
    ]
