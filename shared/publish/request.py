"""A publish request and its response, without the transport that brings them (docs/protocols/events.md)."""

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from shared.model.api_keys import ApiKey
from shared.model.errors import NotGranted, TopicsOnly
from shared.model.events import Event
from shared.model.grants import Grant
from shared.model.idempotency import Repeatable
from shared.model.streams import Published
from shared.wire.events import (
    FORMS,
    MAX_EVENTS,
    Form,
    PublishedBody,
    PublishedEvent,
    StreamPlace,
    events_in,
    form_of,
    parse_events,
)
from shared.wire.idempotency import HEADER, fingerprint_of, idempotency_key_in
from shared.wire.posted_cloudevents import cloudevents_in

LONG_BODY_BYTES = 32 * 1024
"""A longer body is parsed in turns of the event loop: it may take 5 ms and more."""
# What one turn parses, and what an event adds to its data.
_BYTES_A_TURN = 32 * 1024
_EVENT_BYTES = 256
_OURS = (Form.JSON, Form.LINES)
_IDEMPOTENCY_KEY = HEADER.lower().encode()
# Nearly every request has these: one look-up in place of ten comparisons each.
_UNUSED = frozenset((b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"content-length"))
# One of these makes a CloudEvent in binary mode: headers with other names may be of any program.
_REQUIRED = frozenset((b"ce-specversion", b"ce-id", b"ce-source", b"ce-type"))


@dataclass(slots=True)
class Headers:
    """What a publish needs of a request's headers. `authorization` and `content_type` are the first ones.

    `attributes` are the headers of a CloudEvent in binary mode.
    """

    content_type: str = ""
    idempotency_keys: Sequence[str] = ()
    traceparents: Sequence[str] = ()
    authorization: str = ""
    request_id: str = ""
    is_cross_origin: bool = False
    is_encoded: bool = False
    attributes: Sequence[tuple[bytes, bytes]] = ()

    @property
    def form(self) -> Form:
        """How the body holds its events. Raises Invalid."""
        form = FORMS.get(self.content_type) or form_of(_media_type(self.content_type))
        if self.attributes and form in _OURS and any(name in _REQUIRED for name, _ in self.attributes):
            return Form.BINARY
        return form

    @property
    def traceparent(self) -> str | None:
        """The only one. With several a new trace begins (W3C): the publish is never refused."""
        return self.traceparents[0] if len(self.traceparents) == 1 else None


def headers_in(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Reads them in one pass; names are in lower case."""
    found = Headers()
    for name, value in headers:
        if name in _UNUSED:
            continue
        if name == b"authorization":
            found.authorization = found.authorization or value.decode("latin-1")
        elif name == b"content-type":
            found.content_type = found.content_type or value.decode("latin-1")
        elif name == b"x-request-id":
            found.request_id = found.request_id or value.decode("latin-1")
        elif name == b"origin":
            found.is_cross_origin = True
        elif name == _IDEMPOTENCY_KEY:
            found.idempotency_keys = [*found.idempotency_keys, value.decode("latin-1")]
        elif name == b"content-encoding":
            found.is_encoded = True
        elif name == b"traceparent":
            found.traceparents = [*found.traceparents, value.decode("latin-1")]
        elif name.startswith(b"ce-"):
            found.attributes = [*found.attributes, (name, value)]
    return found


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


@dataclass(slots=True, eq=False)
class Posted:
    """The events of one request, for one account. `body` and `form` give errors their position.

    `api_key_id` is the publisher's, whose quotas count too.
    """

    account_id: str
    events: Sequence[Event]
    body: bytes
    form: Form
    traceparent: str | None
    api_key_id: str = ""


def parse(
    key: ApiKey | Grant,
    headers: Headers,
    body: bytes,
    *,
    id_of: Callable[[int], str] | None = None,
    most: int = MAX_EVENTS,
) -> Posted:
    """The events that this publisher posts, at most so many of ours; `id_of` names those without an id,
    None at random.

    Raises Invalid, TooLarge.
    """
    form = headers.form
    if form in _OURS:
        events = parse_events(body, form=form, id_of=id_of, most=most)
    else:
        events = list(_cloudevents_in(headers, body, form))
    return Posted(key.account_id, events, body, form, headers.traceparent, key.id)


async def parse_in_turns(
    key: ApiKey | Grant,
    headers: Headers,
    body: bytes,
    *,
    id_of: Callable[[int], str] | None = None,
    most: int = MAX_EVENTS,
) -> Posted:
    """The same for a body of any length: others have their turns of the event loop meanwhile."""
    if len(body) <= LONG_BODY_BYTES:
        return parse(key, headers, body, id_of=id_of, most=most)
    form, room = headers.form, _BYTES_A_TURN
    is_ours = form in _OURS
    found = (
        events_in(body, form=form, id_of=id_of, most=most)
        if is_ours
        else _cloudevents_in(headers, body, form)
    )
    events: list[Event] = []
    for event in found:
        events.append(event)
        room -= len(event.data) + len(event.attributes) + _EVENT_BYTES
        if room < 0:
            room = _BYTES_A_TURN
            await asyncio.sleep(0)
    return Posted(key.account_id, events, body, form, headers.traceparent, key.id)


def _cloudevents_in(headers: Headers, body: bytes, form: Form) -> Iterator[Event]:
    return cloudevents_in(body, form=form, headers=headers.attributes, content_type=headers.content_type)


def check_granted(publisher: ApiKey | Grant, events: Sequence[Event]) -> None:
    """Raises NotGranted, TopicsOnly for the first event that a token does not allow."""
    if isinstance(publisher, ApiKey):
        return
    for event in events:
        if not publisher.may_publish(event.topic):
            raise NotGranted("publish", f"the topic {event.topic}")
        if event.to is not None or event.customer is not None:
            # It would reach channels that want nothing of the kind.
            raise TopicsOnly("customer" if event.to is None else "to")


def repeatable_by(publisher: ApiKey | Grant, headers: Headers, body: bytes) -> Repeatable | None:
    """The identity of a request that may be repeated; None without an Idempotency-Key. Raises Invalid.

    Publishers by token have their account in common, and their keys apart by subject.
    """
    key = idempotency_key_in(headers.idempotency_keys)
    return None if key is None else repeatable(publisher, key, kind=_kind_of(headers), body=body)


def repeatable(publisher: ApiKey | Grant, key: str, *, kind: str, body: bytes) -> Repeatable:
    """The same for a key that was read. `kind` is the media type of the body, or stands for it."""
    fingerprint = fingerprint_of(kind, body)
    if isinstance(publisher, Grant):
        return Repeatable(
            publisher.account_id, f"{len(publisher.subject)} {publisher.subject} {key}", fingerprint
        )
    return Repeatable(publisher.id, key, fingerprint)


def _kind_of(headers: Headers) -> str:
    """What tells requests with one body apart: the media type; of a CloudEvent in binary mode all of it."""
    if headers.form is not Form.BINARY:
        return _media_type(headers.content_type)
    # Proxies may change the order of headers.
    lines = sorted(b"%b:%b" % header for header in headers.attributes)
    return b"\n".join([headers.content_type.encode(), *lines]).decode("latin-1")


def response_body(posted: Posted, counts: Sequence[int]) -> bytes:
    """The body of a 202: each event with the number of channels and sessions it went to.

    With its place in the stream of its topic, if it is retained.
    """
    return msgspec.json.encode(PublishedBody(_published(posted, counts)))


def published_events(posted: Posted, counts: Sequence[int]) -> bytes:
    """The array in that body."""
    return msgspec.json.encode(_published(posted, counts))


def _published(posted: Posted, counts: Sequence[int]) -> list[PublishedEvent]:
    published = [PublishedEvent(event.id, count) for event, count in zip(posted.events, counts, strict=True)]
    if isinstance(counts, Published):
        for index, offset in counts.offsets.items():
            published[index].stream = StreamPlace(offset)
    return published


def pack_counts(counts: Sequence[int]) -> bytes:
    """What Redis keeps of a response for repetitions: they bring the ids themselves."""
    if isinstance(counts, Published):
        return zlib.compress(orjson.dumps([list(counts), list(counts.offsets.items())]))
    return zlib.compress(orjson.dumps(counts))


def unpack_counts(packed: bytes) -> list[int]:
    counts: list[Any] = orjson.loads(zlib.decompress(packed))
    return Published(counts[0], dict(counts[1])) if isinstance(counts[0], list) else counts
