"""POST /v1/events: appends each event to the queue of every matching channel, then responds."""

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import orjson
from msgspec import Meta
from starlette.requests import Request
from starlette.types import ASGIApp

from services.gateway.bodies import body_of
from services.gateway.context import Context, context_of
from services.gateway.openapi import TEXT, in_header, request_body, response
from services.gateway.operations import PUBLISHER, Operation
from services.gateway.receipts import open_receipts
from shared import telemetry
from shared.clock import now_ms
from shared.model import events as topics
from shared.model.api_keys import ApiKey
from shared.model.errors import Invalid, TooLarge
from shared.model.events import Event
from shared.model.idempotency import Repeatable
from shared.model.routing_table import RoutingTable
from shared.runtime.http.responses import RawJsonResponse
from shared.store.queues import Appended
from shared.wire.events import (
    MAX_EVENTS,
    Form,
    NewEvent,
    PublishedBody,
    PublishedEvent,
    form_of,
    parse_events,
    position_of,
)
from shared.wire.idempotency import HEADER, fingerprint_of, idempotency_key_in
from shared.wire.models import field_at

PATH = "/v1/events"
# Notifications of one request. Redis must hold them all before the response.
MAX_COPIES = 100_000
MAX_COPIES_BYTES = 64 * 1024 * 1024
# Yield to the event loop this often: matching 10,000 events would block it.
_EVENTS_A_TURN = 100
_IDEMPOTENCY_KEY = HEADER.lower().encode()
_SETS_TYPE = (topics.DEVICE_REGISTRATIONS, topics.DEVICE_REG_UPDATES)
_REMOVES_TYPE = (topics.DEVICE_DE_REGISTRATIONS, topics.DEVICE_REGISTRATIONS_EXPIRED)

_LINES = {"type": "string", "description": "One event a line, as JSON."}


@dataclass(frozen=True, slots=True)
class _Source:
    """The body of the events, for positions in errors, and the publisher's trace context."""

    body: bytes
    form: Form
    traceparent: str | None


@Operation(
    f"POST {PATH}",
    PUBLISHER,
    successes={202: response("Accepted.", PublishedBody, Idempotent_Replayed={"const": "true"})},
    errors=(409, 422),
    body=request_body(
        NewEvent | Annotated[list[NewEvent], Meta(min_length=1, max_length=MAX_EVENTS)],
        **{"application/x-ndjson": _LINES, "application/ndjson": _LINES},
    ),
    parameters=[
        in_header(
            HEADER,
            "Repetitions under the same key get the first response; the events are published once.",
            {**TEXT, "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][ -~]*$"},
        ),
        in_header("traceparent", "W3C trace context."),
    ],
)
async def publish(request: Request, key: ApiKey) -> ASGIApp:
    """Publishes events. The response is sent when Redis holds every notification."""
    context = context_of(request)
    body = await body_of(request)
    idempotency_keys, traceparents, media_type = _headers_of(request)
    idempotency_key = idempotency_key_in(idempotency_keys)
    form = form_of(media_type)
    # Several traceparent headers: start a new trace (W3C), never refuse the publish.
    source = _Source(body, form, traceparents[0] if len(traceparents) == 1 else None)
    if idempotency_key is None:
        events = parse_events(body, form=form)
        return _response(events, await _publish(context, key.account_id, events, source))
    repeatable = Repeatable(key.id, idempotency_key, fingerprint_of(media_type, body))
    events = parse_events(body, form=form, id_of=repeatable.event_id)

    async def work() -> bytes:
        return _packed(await _publish(context, key.account_id, events, source))

    packed, is_repetition = await context.idempotent_requests.run(repeatable, work)
    return _response(events, _unpacked(packed), is_repetition=is_repetition)


def _headers_of(request: Request) -> tuple[list[str], list[str], str]:
    """The Idempotency-Keys, the traceparents and the media type, in one pass."""
    idempotency_keys, traceparents, media_type = list[str](), list[str](), ""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            media_type = media_type or value.decode("latin-1").partition(";")[0].strip().lower()
        elif name == _IDEMPOTENCY_KEY:
            idempotency_keys.append(value.decode("latin-1"))
        elif name == b"traceparent":
            traceparents.append(value.decode("latin-1"))
    return idempotency_keys, traceparents, media_type


def _response(events: Sequence[Event], counts: Sequence[int], *, is_repetition: bool = False) -> ASGIApp:
    published = [PublishedEvent(event.id, count) for event, count in zip(events, counts, strict=True)]
    more = [(b"idempotent-replayed", b"true")] if is_repetition else []
    return RawJsonResponse(msgspec.json.encode(PublishedBody(published)), status=202, more=more)


def _packed(counts: Sequence[int]) -> bytes:
    """What Redis keeps of a response: the counts. A repetition brings the ids itself."""
    return zlib.compress(orjson.dumps(counts))


def _unpacked(packed: bytes) -> list[int]:
    counts: list[int] = orjson.loads(zlib.decompress(packed))
    return counts


async def _publish(context: Context, account_id: str, events: Sequence[Event], source: _Source) -> list[int]:
    """Appends the events, in order. Returns for each the number of channels and sessions it went to.

    When this returns, Redis holds every notification. Raises Invalid for an unknown addressee; TooLarge for
    too many notifications; StoreUnavailable: some may be appended, so a repetition may duplicate them.
    """
    with telemetry.publish_span(account_id, len(events), traceparent=source.traceparent) as traceparent:
        table, of_all = await context.stores.routing.tables_for_publish(account_id)
        _check_addressees(events, table, source)
        events, types = await _with_device_types(context, account_id, events, table)
        channels, sessions = await _match(events, table, of_all)
        now = now_ms()
        channels = {key: which for key, which in channels.items() if not table.is_expired(key, now_ms=now)}
        _check_size(events, [*channels.values(), *sessions.values()])
        if types:
            await context.stores.routing.learn_device_types(account_id, types)
        queued = await _append(
            context, account_id, events, channels, sessions, traceparent=traceparent, now_ms=now
        )
    counts = [0] * len(events)
    for which, count in zip((*channels.values(), *sessions.values()), queued, strict=True):
        for index in which[:count]:
            counts[index] += 1
    telemetry.queued.add(sum(queued))
    telemetry.published.add(len(events))
    return counts


async def _match(
    events: Sequence[Event], table: RoutingTable, of_all: RoutingTable
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The indexes of the events for each channel and for each session.

    One append takes all events of a channel: it keeps their order, and queues all or none.
    """
    channels: dict[str, list[int]] = {}
    sessions: dict[str, list[int]] = {}
    for index, event in enumerate(events):
        if index % _EVENTS_A_TURN == _EVENTS_A_TURN - 1:
            await asyncio.sleep(0)
        for api_key_id in table.channels_for(event):
            channels.setdefault(api_key_id, []).append(index)
        for session_id in _sessions_for(event, table, of_all):
            sessions.setdefault(session_id, []).append(index)
    return channels, sessions


def _sessions_for(event: Event, *routes: RoutingTable) -> set[str]:
    """The sessions that match the event. Parses its data only if a binding needs it."""
    data = orjson.loads(event.data) if any(its.needs_data for its in routes) else None
    return set().union(*(its.sessions_for(event, data) for its in routes))


def _check_size(events: Sequence[Event], indexes: Sequence[list[int]]) -> None:
    copies = sum(map(len, indexes))
    size = sum(len(events[index].data) for which in indexes for index in which)
    if copies > MAX_COPIES or size > MAX_COPIES_BYTES:
        limit = f"{MAX_COPIES} notifications or {MAX_COPIES_BYTES // 1024 // 1024} MiB"
        raise TooLarge(
            f"events times channels: {copies} notifications, {size} bytes; the limit of a request is {limit}"
        )


async def _append(
    context: Context,
    account_id: str,
    events: Sequence[Event],
    channels: dict[str, list[int]],
    sessions: dict[str, list[int]],
    *,
    traceparent: str,
    now_ms: int,
) -> list[int]:
    """How many events each channel, then each session, has taken. A channel takes all or none."""
    copies = [(api_key_id, [events[index] for index in which]) for api_key_id, which in channels.items()]
    appends = context.stores.queues.append_all(copies, traceparent=traceparent)
    receipts = open_receipts(context, account_id, events, channels, now_ms=now_ms)
    to_sessions = [
        context.stores.sessions.append(session_id, account_id, [events[index] for index in which])
        for session_id, which in sessions.items()
    ]
    of_sessions: list[int] = []
    if receipts or to_sessions:
        outcomes, of_sessions, _ = await asyncio.gather(
            appends, asyncio.gather(*to_sessions), asyncio.gather(*receipts)
        )
    else:
        outcomes = await appends
    queued = [
        len(events_taken) if outcome is Appended.QUEUED else 0
        for (_, events_taken), outcome in zip(copies, outcomes, strict=True)
    ]
    return [*queued, *of_sessions]


def _check_addressees(events: Sequence[Event], table: RoutingTable, source: _Source) -> None:
    for index, event in enumerate(events):
        if event.to is not None and event.to not in table.api_keys:
            at = position_of(index, body=source.body, form=source.form)
            raise Invalid("is not an API key of this account", field=field_at(at, "to"))


async def _with_device_types(
    context: Context, account_id: str, events: Sequence[Event], table: RoutingTable
) -> tuple[Sequence[Event], dict[str, str | None]]:
    """The events, with the device's type in notifications if a binding needs it; and the types that this
    request sets (None: removes)."""
    stored: dict[str, str] = {}
    if table.needs_device_types:
        notified = [event.fields for event in events if event.topic == topics.DEVICE_NOTIFICATIONS]
        devices = sorted({fields["ep"] for fields in notified if fields})
        stored = await context.stores.routing.device_types(account_id, devices) if devices else {}
    types: dict[str, str | None] = {}
    typed: list[Event] = []
    for event in events:
        fields = event.fields or {}
        if event.topic in _SETS_TYPE and "ept" in fields:
            types[fields["ep"]] = fields["ept"]
        elif event.topic in _REMOVES_TYPE:
            types[fields["ep"]] = None
        elif event.topic == topics.DEVICE_NOTIFICATIONS and table.needs_device_types:
            # Device types set earlier in this request take precedence over stored ones.
            device_type = types.get(fields["ep"], stored.get(fields["ep"]))
            event = event._replace(fields={**fields, "ept": device_type or ""})
        typed.append(event)
    return typed, types
