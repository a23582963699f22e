"""POST /v1/events: an event goes into the queue of every channel that wants it, before the answer is sent."""

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp

from services.gateway.bodies import body_of
from services.gateway.context import Context, context_of
from services.gateway.receipts import opened_receipts
from shared import telemetry
from shared.model import events as topics
from shared.model.api_keys import Scope
from shared.model.errors import GatewayError, Invalid, TooLarge
from shared.model.events import Event
from shared.model.idempotency import Repeatable
from shared.model.routing_table import RoutingTable
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import RawJsonResponse
from shared.store.queues import Appended
from shared.wire.events import Form, form_of, parse_events, place_of
from shared.wire.idempotency import HEADER, fingerprint_of, idempotency_key_in

# One request's copies; Redis must hold them all before the answer, and the sender must hear it in time.
MAX_COPIES = 100_000
MAX_COPIES_BYTES = 64 * 1024 * 1024
# Others get their turn of the event loop in between.
_EVENTS_A_TURN = 100
_IDEMPOTENCY_KEY = HEADER.lower().encode()
_TELLS_TYPE = (topics.DEVICE_REGISTRATIONS, topics.DEVICE_REG_UPDATES)
_FORGETS_TYPE = (topics.DEVICE_DE_REGISTRATIONS, topics.DEVICE_REGISTRATIONS_EXPIRED)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the events were read from, and the span of the publisher's that they belong to."""

    body: bytes
    form: Form
    traceparent: str | None


class UnknownAddressee(GatewayError):
    """The event at `index` is for an API key that is not the account's."""

    def __init__(self, *, index: int) -> None:
        super().__init__("is not an API key of this account")
        self.index = index


async def publish(request: Request) -> ASGIApp:
    """POST /v1/events."""
    context = context_of(request)
    key = await context.authenticator.require(request, Scope.PUBLISH)
    body = await body_of(request)
    idempotency_keys, traceparents, media_type = _headers_of(request)
    idempotency_key = idempotency_key_in(idempotency_keys)
    form = form_of(media_type)
    # Two name no one parent; a publish is never refused for its trace.
    source = _Source(body, form, traceparents[0] if len(traceparents) == 1 else None)
    if idempotency_key is None:
        events = parse_events(body, form=form)
        return _answer(events, await _queue(context, key.account_id, events, source))
    repeatable = Repeatable(key.id, idempotency_key, fingerprint_of(media_type, body))
    events = parse_events(body, form=form, id_of=repeatable.event_id)

    async def counts() -> bytes:
        return _packed(await _queue(context, key.account_id, events, source))

    packed, is_repetition = await context.once.run(repeatable, counts)
    return _answer(events, _unpacked(packed), is_repetition=is_repetition)


def _headers_of(request: Request) -> tuple[list[str], list[str], str]:
    """The Idempotency-Keys, the traceparents, and the media type; read in one go."""
    idempotency_keys, traceparents, media_type = list[str](), list[str](), ""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            media_type = media_type or value.decode("latin-1").partition(";")[0].strip().lower()
        elif name == _IDEMPOTENCY_KEY:
            idempotency_keys.append(value.decode("latin-1"))
        elif name == b"traceparent":
            traceparents.append(value.decode("latin-1"))
    return idempotency_keys, traceparents, media_type


def _answer(events: Sequence[Event], counts: Sequence[int], *, is_repetition: bool = False) -> ASGIApp:
    told = [{"id": event.id, "channels": count} for event, count in zip(events, counts, strict=True)]
    more = [(b"idempotent-replayed", b"true")] if is_repetition else []
    return RawJsonResponse(orjson.dumps({"events": told}), status=202, more=more)


def _packed(counts: Sequence[int]) -> bytes:
    """What is kept of an answer. A repetition brings all else along, and this is a thousandth of it."""
    return zlib.compress(orjson.dumps(counts))


def _unpacked(packed: bytes) -> list[int]:
    counts: list[int] = orjson.loads(zlib.decompress(packed))
    return counts


async def _queue(context: Context, account_id: str, events: Sequence[Event], source: _Source) -> list[int]:
    """`publish_events` with its span, its count, and faults that name places in the body."""
    with telemetry.publish_span(account_id, len(events), traceparent=source.traceparent) as traceparent:
        try:
            counts = await publish_events(context, account_id, events, traceparent=traceparent)
        except UnknownAddressee as error:
            at = place_of(error.index, body=source.body, form=source.form)
            raise Invalid(str(error), field=f"{at}.to" if at else "to") from None
    telemetry.published.add(len(events))
    return counts


async def publish_events(
    context: Context, account_id: str, events: Sequence[Event], *, traceparent: str = ""
) -> list[int]:
    """Queues the events, in order; tells for each into how many queues it went.

    When this returns Redis holds every copy. Raises UnknownAddressee; TooLarge when the copies are too many;
    StoreUnavailable when some copies may be held and others not: publishing again is safe, and may double.
    """
    routes, of_all = await context.routing.tables_for_publish(account_id)
    _check_addressees(events, routes)
    events, types = await _with_device_types(context, account_id, events, routes)
    # Everything for one channel goes in one call: order within a request is kept, all or none.
    wanted: dict[str, list[int]] = {}
    listening: dict[str, list[int]] = {}
    for index, event in enumerate(events):
        if index % _EVENTS_A_TURN == _EVENTS_A_TURN - 1:
            await asyncio.sleep(0)
        for api_key_id in routes.channels_for(event):
            wanted.setdefault(api_key_id, []).append(index)
        for session_id in _sessions_for(event, routes, of_all):
            listening.setdefault(session_id, []).append(index)
    now = now_ms()
    wanted = {key: which for key, which in wanted.items() if not routes.is_expired(key, now_ms=now)}
    _check_copies(events, [*wanted.values(), *listening.values()])
    if types:
        await context.routing.learn_device_types(account_id, types)
    queued = await _put(context, account_id, events, wanted, listening, traceparent=traceparent, now_ms=now)
    counts = [0] * len(events)
    for which, count in zip((*wanted.values(), *listening.values()), queued, strict=True):
        for index in which[:count]:
            counts[index] += 1
    telemetry.queued.add(sum(queued))
    return counts


def _sessions_for(event: Event, *routes: RoutingTable) -> set[str]:
    """The sessions that the event is for, each once; its data is parsed only if one of them asks for that."""
    data = orjson.loads(event.data) if any(its.needs_data for its in routes) else None
    return set().union(*(its.sessions_for(event, data) for its in routes))


def _check_copies(events: Sequence[Event], wanted: Sequence[list[int]]) -> None:
    copies = sum(map(len, wanted))
    size = sum(len(events[index].data) for which in wanted for index in which)
    if copies > MAX_COPIES or size > MAX_COPIES_BYTES:
        limit = f"{MAX_COPIES} copies or {MAX_COPIES_BYTES // 1024 // 1024} MiB"
        raise TooLarge(
            f"events times channels: {copies} copies, {size} bytes; at most {limit} in one request"
        )


async def _put(
    context: Context,
    account_id: str,
    events: Sequence[Event],
    wanted: dict[str, list[int]],
    listening: dict[str, list[int]],
    *,
    traceparent: str,
    now_ms: int,
) -> list[int]:
    """How many were queued for each channel, and then for each session."""
    queuing = _queued(context, events, wanted, traceparent=traceparent)
    receipts = opened_receipts(context, account_id, events, wanted, now_ms=now_ms)
    if not receipts and not listening:
        return await queuing
    offers = [
        _offered(context, session_id, account_id, [events[index] for index in which])
        for session_id, which in listening.items()
    ]
    opened = asyncio.gather(*receipts)
    queued, fitted, _ = await asyncio.gather(queuing, asyncio.gather(*offers), opened)
    return [*queued, *fitted]


async def _queued(
    context: Context, events: Sequence[Event], wanted: dict[str, list[int]], *, traceparent: str
) -> list[int]:
    """How many were queued for each channel: all or none."""
    copies = [(api_key_id, [events[index] for index in which]) for api_key_id, which in wanted.items()]
    appended = await context.queues.append_all(copies, traceparent=traceparent)
    queued = (outcome is Appended.QUEUED for outcome in appended)
    return [len(which) if was else 0 for which, was in zip(wanted.values(), queued, strict=True)]


async def _offered(context: Context, session_id: str, account_id: str, events: Sequence[Event]) -> int:
    """How many of the events fitted into the session's queue: the first of them."""
    _, fitted = await context.sessions.append(session_id, account_id, events)
    return fitted


def _check_addressees(events: Sequence[Event], routes: RoutingTable) -> None:
    for index, event in enumerate(events):
        if event.to is not None and event.to not in routes.api_keys:
            raise UnknownAddressee(index=index)


async def _with_device_types(
    context: Context, account_id: str, events: Sequence[Event], routes: RoutingTable
) -> tuple[Sequence[Event], dict[str, str | None]]:
    """The events, notifications with their device's type if any binding asks for one; and the types that
    registrations among them tell (None: forget it)."""
    told: dict[str, str | None] = {}
    typed: list[Event] = []
    needed = set[str]()
    for event in events:
        fields = event.fields or {}
        if event.topic in _TELLS_TYPE and "ept" in fields:
            told[fields["ep"]] = fields["ept"]
        elif event.topic in _FORGETS_TYPE:
            told[fields["ep"]] = None
        elif event.topic == topics.DEVICE_NOTIFICATIONS and routes.needs_device_types:
            # What this request itself has told so far counts already.
            if fields["ep"] in told:
                event = event._replace(fields={**fields, "ept": told[fields["ep"]] or ""})
            else:
                needed.add(fields["ep"])
        typed.append(event)
    if needed:
        known = await context.routing.device_types(account_id, sorted(needed))
        typed = [_typed(event, known) for event in typed]
    return typed, told


def _typed(event: Event, known: dict[str, str]) -> Event:
    fields = event.fields or {}
    if event.topic != topics.DEVICE_NOTIFICATIONS or "ept" in fields:
        return event
    return event._replace(fields={**fields, "ept": known.get(fields["ep"], "")})
