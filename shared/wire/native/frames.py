"""What a client of the native WebSocket may send: one request a frame (docs/protocols/native.md).

    frame     := {"ref": number, operation: {...}}
    operation := auth | refresh | subscribe | unsubscribe | open | ack | nack | close | publish | ping

A frame that cannot be answered is malformed. What breaks a rule within its operation is refused, and the
error names the field.
"""

import re
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from shared.model.errors import Invalid
from shared.model.streams import BEGINNING, Mark, Start, is_offset
from shared.wire.fetches import Entry
from shared.wire.models import Closed, parse, rule
from shared.wire.native.members import Malformed, members
from shared.wire.native_tokens import MOST_BYTES
from shared.wire.stream_requests import exact_topic_error

SUBPROTOCOL = "notify.v1"
MOST_EVENTS = 100
MOST_IN_FLIGHT = 1000
LONGEST_ACK_S = 3600
LARGEST_REF = 2**53 - 1

_REF: msgspec.json.Decoder[int] = msgspec.json.Decoder(Annotated[int, Meta(ge=0, le=LARGEST_REF)])
_Token = Annotated[str, Meta(min_length=1, max_length=MOST_BYTES)]
_Text = Annotated[str, Meta(min_length=1, max_length=255)]
_Epoch = Annotated[
    str, Meta(pattern=rule(r"^[0-9A-Za-z_-]{0,32}\Z", "must be the `epoch` of a stream"), max_length=32)
]
_From = Annotated[
    str,
    Meta(
        pattern=rule(r"^(latest|earliest)\Z", "must be latest or earliest"),
        description="Where to begin without a place.",
    ),
]
_Channel = Annotated[_Text, Meta(description="Its id, as `opened` has it.")]


class Auth(Closed):
    """Authenticates the socket, once."""

    token: _Token


class Refresh(Closed):
    """Replaces the token by another one of the same account and subject."""

    token: _Token


class Subscribe(Closed):
    """Reads a topic: from the latest event on, from the earliest, or behind a place."""

    topic: _Text
    from_: _From | None = msgspec.field(name="from", default=None)
    epoch: _Epoch | None = None
    after: Annotated[_Text | None, Meta(description="The offset of the last event that was handled.")] = None

    @property
    def since(self) -> Mark | Start:
        if self.after is None:
            return Start(self.from_ or Start.LATEST)
        return Mark(self.epoch or "", self.after)


class Unsubscribe(Closed):
    topic: _Text


class Open(Closed):
    """Makes the socket the owner of a channel."""

    channel: Annotated[_Text, Meta(description="Its id or its name.")]
    ack_timeout_s: Annotated[float, Meta(ge=1, le=LONGEST_ACK_S)] | None = 30
    in_flight: Annotated[int, Meta(ge=1, le=MOST_IN_FLIGHT)] | None = 256


class Ack(Closed):
    """Everything of the channel up to this entry was handled."""

    channel: _Channel
    entry: Entry


class Nack(Closed):
    """Everything of the channel from this entry on is to be delivered again."""

    channel: _Channel
    entry: Entry
    delay_s: Annotated[float, Meta(ge=0, le=3600)] | None = 0


class Close(Closed):
    """Gives a channel back; what was not acknowledged stays pending."""

    channel: _Channel


class Publish(Closed):
    """Publishes events, as the body of POST /v1/events. `events` is checked by who publishes."""

    events: Annotated[msgspec.Raw, Meta(description=f"An array of 1 to {MOST_EVENTS} events.")]
    idempotency_key: _Text | None = None


class Ping(Closed):
    pass


Body: TypeAlias = Auth | Refresh | Subscribe | Unsubscribe | Open | Ack | Nack | Close | Publish | Ping
OPERATIONS: dict[str, type[Body]] = {
    "auth": Auth,
    "refresh": Refresh,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "open": Open,
    "ack": Ack,
    "nack": Nack,
    "close": Close,
    "publish": Publish,
    "ping": Ping,
}
WITHOUT_REF = ("ack", "nack")
"""These may go without a ref, and then have no answer but an error."""
_NULL = b"null"
# What comes most often, as libraries write it. Nothing else is in a publish, if what is between head and end
# is an array; nor in an ack, which has no text with an escape.
_REF_TEXT = rb'"ref": ?(0|[1-9][0-9]{0,15}), ?'
_PLAIN_PUBLISH = re.compile(rb'\{ ?%b"publish": ?\{ ?"events": ?(?=\[)' % _REF_TEXT)
_END = b"]}}"
_NUMBER = rb"(?:0|[1-9][0-9]{0,14})"
_PLAIN_ACK = re.compile(
    rb'\{ ?(?:%b)?"ack": ?\{ ?"channel": ?"([0-9A-Za-z_-]{1,255})", ?"entry": ?"(%b-%b)"\}\}'
    % (_REF_TEXT, _NUMBER, _NUMBER)
)
_DECODERS: dict[str, msgspec.json.Decoder[Body]] = {
    name: msgspec.json.Decoder(body) for name, body in OPERATIONS.items()
}


class Request(msgspec.Struct, gc=False, frozen=True):
    """One request. `size_bytes` is that of its frame.

    A publish that is not checked is all that its frame has, if its events are an array in JSON. So they are
    parsed once. If they are none, `check` says what the frame is.
    """

    ref: int | None
    operation: str
    body: Body
    size_bytes: int
    is_checked: bool = True


class Refused(Invalid):
    """A request breaks a rule. It is answered, and closes nothing."""

    def __init__(self, ref: int | None, operation: str, size_bytes: int, error: Invalid) -> None:
        super().__init__(error.message)
        self.fields = error.fields
        self.ref = ref
        self.operation = operation
        self.size_bytes = size_bytes


def parse_frame(text: bytes) -> Request:
    """The request in a text frame. Raises Malformed, which closes the socket, or Refused."""
    plain = _PLAIN_PUBLISH.match(text)
    if plain is not None and text.endswith(_END) and (ref := int(plain[1])) <= LARGEST_REF:
        events = msgspec.Raw(text[plain.end() : -2])
        return Request(ref, "publish", Publish(events), len(text), is_checked=False)
    ack = _PLAIN_ACK.fullmatch(text)
    if ack is not None and (ack[1] is None or int(ack[1]) <= LARGEST_REF):
        ref_of_ack = None if ack[1] is None else int(ack[1])
        return Request(ref_of_ack, "ack", Ack(ack[2].decode(), ack[3].decode()), len(text))
    return _checked(text)


def check(request: Request) -> None:
    """Raises Malformed for a frame that is no request, and Refused if another rule is broken."""
    if not request.is_checked and isinstance(request.body, Publish) and request.ref is not None:
        _checked(b'{"ref":%d,"publish":{"events":%b}}' % (request.ref, bytes(request.body.events)))


def _checked(text: bytes) -> Request:
    try:
        given = members(text)
        operation = _operation_in(given)
        ref = _ref_in(given, operation)
        if given[operation].startswith(b"{"):
            # For its names.
            members(given[operation])
    except Malformed as error:
        raise Malformed(f"the frame {error}") from None
    try:
        return Request(ref, operation, _body_in(given, operation), len(text))
    except Invalid as error:
        raise Refused(ref, operation, len(text), error) from None


def _operation_in(given: dict[str, bytes]) -> str:
    """Raises Malformed."""
    found = [name for name in given if name in OPERATIONS and given[name] != _NULL]
    if len(found) != 1:
        raise Malformed("has more than one operation" if found else "has no operation that is known")
    return found[0]


def _ref_in(given: dict[str, bytes], operation: str) -> int | None:
    """Raises Malformed."""
    ref = given.get("ref", _NULL)
    if ref == _NULL:
        if operation in WITHOUT_REF:
            return None
        raise Malformed("has no ref")
    try:
        return _REF.decode(ref)
    except msgspec.DecodeError:
        raise Malformed(f"has a ref that is no integer from 0 to {LARGEST_REF}") from None


def _body_in(given: dict[str, bytes], operation: str) -> Body:
    """Raises Invalid."""
    body = parse(_DECODERS[operation], given[operation], at=operation)
    for name in given:
        if name != "ref" and name not in OPERATIONS:
            raise Invalid("unknown field", field=name[:100])
    if isinstance(body, Subscribe | Unsubscribe) and (wrong := exact_topic_error(body.topic)) is not None:
        raise Invalid(wrong, field=f"{operation}.topic")
    if isinstance(body, Subscribe):
        _check_place(body)
    return body


def _check_place(body: Subscribe) -> None:
    """Raises Invalid."""
    if (body.epoch is None) != (body.after is None):
        missing = "epoch" if body.epoch is None else "after"
        raise Invalid("is missing: a place is an epoch and an offset", field=f"subscribe.{missing}")
    if body.after is None:
        return
    if body.from_ is not None:
        raise Invalid("must be left out beside a place", field="subscribe.from")
    if not is_offset(body.after):
        raise Invalid(f"must be the offset of an event, or {BEGINNING}", field="subscribe.after")
