"""POST /v1/events: publishes, and responds when Redis holds every notification."""

from typing import Annotated

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.bodies import body_of
from services.gateway.context import context_of
from services.gateway.openapi import TEXT, in_header, request_body, response
from services.gateway.operations import PUBLISHER_OR_TOKEN, Json, Operation
from shared.model.api_keys import ApiKey
from shared.model.grants import Grant
from shared.publish.request import (
    check_granted,
    headers_in,
    parse_in_turns,
    repeatable_by,
    response_body,
)
from shared.wire.cloudevent_rules import LONGEST_NAME, LONGEST_VALUE
from shared.wire.cloudevents import BATCH_MEDIA_TYPE, MEDIA_TYPE
from shared.wire.events import MAX_EVENTS, NewEvent, PublishedBody
from shared.wire.idempotency import HEADER

PATH = "/v1/events"

_LINES = {"type": "string", "description": "One event a line, as JSON."}
_NAME = f"^([a-z0-9]{{1,{LONGEST_NAME}}}|data_base64)$"
_STRING = {**TEXT, "minLength": 1, "maxLength": LONGEST_VALUE}
_CLOUDEVENT: Json = {
    "type": "object",
    "description": "A CloudEvent. Its type is the topic; attributes named `notify…` are ours.",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {**_STRING, "maxLength": 255},
        "source": {**_STRING, "format": "uri-reference"},
        "type": {**_STRING, "maxLength": 255},
        "time": {"type": ["string", "null"], "format": "date-time"},
        "data": {"description": "Any JSON."},
        "data_base64": {"type": ["string", "null"], "contentEncoding": "base64"},
    },
    "propertyNames": {"pattern": _NAME},
    "additionalProperties": {"type": ["string", "integer", "boolean", "null"], "maxLength": LONGEST_VALUE},
}
_BATCH: Json = {"type": "array", "items": _CLOUDEVENT, "minItems": 1, "maxItems": MAX_EVENTS}


@Operation(
    f"POST {PATH}",
    PUBLISHER_OR_TOKEN,
    successes={202: response("Accepted.", PublishedBody, Idempotent_Replayed={"const": "true"})},
    errors=(409, 422, 429),
    body=request_body(
        NewEvent | Annotated[list[NewEvent], Meta(min_length=1, max_length=MAX_EVENTS)],
        **{"application/x-ndjson": _LINES, "application/ndjson": _LINES},
        **{MEDIA_TYPE: _CLOUDEVENT, BATCH_MEDIA_TYPE: _BATCH},
    ),
    parameters=[
        in_header(
            HEADER,
            "Repetitions under the same key get the first response; the events are published once.",
            {**TEXT, "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][ -~]*$"},
        ),
        in_header("traceparent", "W3C trace context."),
        in_header(
            "ce-specversion", "`1.0`: the body is the data of a CloudEvent, its attributes are headers."
        ),
    ],
)
async def publish(request: Request, publisher: ApiKey | Grant) -> Response:
    """Publishes events. The response is sent when Redis holds every notification."""
    context = context_of(request)
    body = await body_of(request)
    headers = headers_in(request.scope["headers"])
    repeatable = repeatable_by(publisher, headers, body)
    if repeatable is None:
        posted = await parse_in_turns(publisher, headers, body)
        check_granted(publisher, posted.events)
        return _accepted(response_body(posted, await context.publishing.publisher.publish(posted)))
    posted = await parse_in_turns(publisher, headers, body, id_of=repeatable.event_id)
    check_granted(publisher, posted.events)
    counts, is_repetition = await context.publishing.publish_once(posted, repeatable)
    more = {"idempotent-replayed": "true"} if is_repetition else None
    return _accepted(response_body(posted, counts), more)


def _accepted(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, 202, headers, media_type="application/json")
