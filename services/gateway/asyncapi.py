"""The AsyncAPI document: what goes over the connections that edges hold, from the models of their frames.

The application of the document is this service: it *receives* what a client sends.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from services.gateway import edge_frames as said
from services.gateway.documented import NotificationMessage
from services.gateway.openapi import SECURITY_SCHEMES, published
from services.gateway.operations import Json
from shared.version import VERSION
from shared.wire.close_reasons import CLOSE_ROWS, CloseRow
from shared.wire.events import NewEvent, PublishedEvent
from shared.wire.native.frames import LARGEST_REF, MOST_EVENTS, OPERATIONS, SUBPROTOCOL, WITHOUT_REF

NATIVE, STREAM, PELION = "native", "stream", "pelion"
"""The channels of the document."""
_TEXT: Json = {"type": "string"}
_REF: Json = {"type": "integer", "minimum": 0, "maximum": LARGEST_REF}
_ANSWERS: Mapping[str, tuple[str, Any]] = {
    "auth": ("authenticated", said.Authenticated),
    "refresh": ("refreshed", said.Refreshed),
    "subscribe": ("subscribed", said.Begun),
    "unsubscribe": ("unsubscribed", said.Unsubscribed),
    "open": ("opened", said.Opened),
    "ack": ("acked", said.Handled),
    "nack": ("nacked", said.Handled),
    "close": ("closed", said.GivenBack),
    "publish": ("published", list[PublishedEvent]),
    "ping": ("pong", said.Pong),
}
"""By operation: the answer's name and its model."""
CLOUD_EVENT: Json = {
    "type": "object",
    "description": "A CloudEvent 1.0 in JSON; `type` is the topic.",
    "properties": {
        "specversion": {"const": "1.0"},
        **{
            name: {**_TEXT, "minLength": 1} for name in ("id", "source", "type", "subject", "datacontenttype")
        },
        "time": {**_TEXT, "format": "date-time"},
        "notifyoffset": {**_TEXT, "description": "Of a stream: its place there."},
        "data": {"description": "As it was published."},
        "data_base64": {**_TEXT, "contentEncoding": "base64"},
    },
    "required": ["specversion", "id", "source", "type", "time"],
    # Extensions.
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}


class _Schemas:
    """The schemas of models, for the document's components."""

    def __init__(self) -> None:
        self.components: Json = {"CloudEvent": CLOUD_EVENT}

    def of(self, model: Any) -> Json:
        """A reference, where it is an object."""
        [schema], components = msgspec.json.schema_components(
            [model], ref_template="#/components/schemas/{name}"
        )
        self.components |= published(components)
        return published(schema)


def frame(required: Json, optional: Json | None = None) -> Json:
    """The schema of an object with these members and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def asyncapi() -> Json:
    """The document."""
    schemas = _Schemas()
    channels = {
        NATIVE: _native_channel(schemas),
        STREAM: _stream_channel(schemas),
        PELION: _pelion_channel(schemas),
    }
    operations = _native_operations()
    for name in (STREAM, PELION):
        operations |= {
            _camel_case(name, message): _sends(name, message, channels[name]["messages"][message]["summary"])
            for message in channels[name]["messages"]
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Notification gateway",
            "version": VERSION,
            "description": "What edges send and take on connections that stay open; GET /openapi.json has the"
            " requests of HTTP.",
        },
        "defaultContentType": "application/json",
        "servers": {name: _server(name) for name in ("ws", "http")},
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {name: _security_scheme(name) for name in ("apiKey", "token", "ticket")},
        },
    }


def _server(protocol: str) -> Json:
    host = {"default": "127.0.0.1:8000", "description": "The edges, or the one port of `all`."}
    return {"host": "{host}", "protocol": protocol, "variables": {"host": host}}


def _security_scheme(name: str) -> Json:
    """That of OpenAPI, where AsyncAPI has another word for a key in the query."""
    scheme = SECURITY_SCHEMES[name]
    return scheme if scheme["type"] == "http" else {**scheme, "type": "httpApiKey"}


def _ref(*path: str) -> Json:
    return {"$ref": "/".join(("#", *path))}


def _channel(address: str, *, server: str, text: str, messages: Json, **more: Any) -> Json:
    return {
        "address": address,
        "description": text,
        "servers": [_ref("servers", server)],
        "messages": messages,
        **more,
    }


def _message(summary: str, payload: Json, headers: Json | None = None) -> Json:
    return {"summary": summary, "payload": payload, **({"headers": headers} if headers else {})}


def _sends(channel: str, message: str, summary: str) -> Json:
    return {
        "action": "send",
        "summary": summary,
        "channel": _ref("channels", channel),
        "messages": [_ref("channels", channel, "messages", message)],
    }


def _camel_case(*words: str) -> str:
    first, *others = "-".join(words).split("-")
    return first + "".join(map(str.capitalize, others))


def _close_codes(code_of: Callable[[CloseRow], int | None]) -> Json:
    """By code: when it comes, and whether a client that connects again may be served."""
    codes: Json = {}
    for row in CLOSE_ROWS.values():
        if (code := code_of(row)) is not None:
            codes.setdefault(str(code), []).append({"when": row.when, "reconnect": row.reconnect})
    return dict(sorted(codes.items()))


# The native WebSocket


def _native_channel(schemas: _Schemas) -> Json:
    headers = {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"const": SUBPROTOCOL}}}
    return _channel(
        "/v1/socket",
        server="ws",
        text="The native WebSocket; its client offers the subprotocol notify.v1. Frames are texts.",
        messages=_requests(schemas) | _answers(schemas) | _unasked(schemas),
        bindings={"ws": {"method": "GET", "headers": headers}},
        **{"x-close-codes": _close_codes(lambda row: row.native)},
    )


def _requests(schemas: _Schemas) -> Json:
    """What the client says."""
    found = {}
    for name, body in OPERATIONS.items():
        schema, ref = schemas.of(body), {"ref": _REF}
        payload = frame({name: schema}, ref) if name in WITHOUT_REF else frame({**ref, name: schema})
        found[name] = _message(" ".join((body.__doc__ or name).split()).removesuffix("."), payload)
    events = schemas.components["Publish"]["properties"]["events"]
    events |= {"type": "array", "items": schemas.of(NewEvent), "minItems": 1, "maxItems": MOST_EVENTS}
    return found


def _answers(schemas: _Schemas) -> Json:
    """What a request is answered."""
    found = {
        name: _message(f"The answer to {operation}", frame({"ref": _REF, name: schemas.of(model)}))
        for operation, (name, model) in _ANSWERS.items()
    }
    return {**found, "error": _refused(schemas)}


def _refused(schemas: _Schemas) -> Json:
    return _message(
        "A request is refused, which closes nothing",
        frame({"error": schemas.of(said.RequestError)}, {"ref": _REF}),
    )


def _unasked(schemas: _Schemas) -> Json:
    """What the server says without a request."""
    event, again = _ref("components", "schemas", "CloudEvent"), {"redelivered": {"const": True}}
    of_topic = {"topic": _TEXT, "offset": schemas.of(said.Offset), "event": event}
    of_channel = {"channel": _TEXT, "entry": schemas.of(said.Entry), "event": event}
    return {
        "error": _refused(schemas),
        "hello": _message("The first frame", frame({"hello": schemas.of(said.Hello)})),
        "topic-event": _message("An event of a topic", frame(of_topic)),
        "moved": _message("The place in a topic has moved", frame({"moved": schemas.of(said.Moved)})),
        "recovered": _message("Reading goes on behind a hole", frame({"recovered": schemas.of(said.Begun)})),
        "ended": _message("A subscription is over", frame({"ended": schemas.of(said.Ended)})),
        "channel-event": _message("An event of a channel", frame(of_channel, again)),
        "channel-closed": _message(
            "A channel is no longer this socket's", frame({"closed": schemas.of(said.ChannelClosed)})
        ),
    }


def _native_operations() -> Json:
    messages = ("channels", NATIVE, "messages")
    found: Json = {}
    for name, (answer, _) in _ANSWERS.items():
        found[name] = {
            "action": "receive",
            "summary": " ".join((OPERATIONS[name].__doc__ or name).split()).removesuffix("."),
            "channel": _ref("channels", NATIVE),
            "messages": [_ref(*messages, name)],
            "reply": {
                "channel": _ref("channels", NATIVE),
                "messages": [_ref(*messages, answer), _ref(*messages, "error")],
            },
        }
    found |= {
        _camel_case(NATIVE, name): _sends(NATIVE, name, message["summary"])
        for name, message in _unasked(_Schemas()).items()
    }
    return found


# Server-Sent Events


def _stream_channel(schemas: _Schemas) -> Json:
    ids = {"id": {**_TEXT, "description": "The place in all topics of the request: Last-Event-ID."}}

    def named(name: str) -> Json:
        return {"event": {"const": name}}

    event = _ref("components", "schemas", "CloudEvent")
    return _channel(
        "/v1/stream",
        server="http",
        text="Streams of up to 16 topics as Server-Sent Events. The payload is `data`, the headers are the"
        " other fields. A block of an `id` alone moves the place; a comment says that the connection lives.",
        messages={
            "event": _message("An event of a topic", event, frame(ids)),
            "recovered": _message(
                "A topic begins, or goes on behind a hole",
                schemas.of(said.StreamRecovered),
                frame(named("recovered") | ids),
            ),
            "overflow": _message(
                "The client reads too slowly", schemas.of(said.StreamOverflow), frame(named("overflow"))
            ),
            "end": _message("The response ends", schemas.of(said.StreamEnd), frame(named("end"))),
        },
    )


# The Pelion WebSocket


def _pelion_code(index: int, row: CloseRow) -> int | None:
    return row.pelion[index]


def _pelion_channel(schemas: _Schemas) -> Json:
    headers = {"type": "object", "properties": {"Sec-WebSocket-Protocol": _TEXT}}
    return _channel(
        "/v2/notification/websocket-connect",
        server="ws",
        text="The WebSocket of the Pelion service, and of native channels. Its client sends nothing: its"
        " pongs acknowledge. NOTIFY_PELION_CLOSE_CODES chooses the year of the close codes.",
        messages={
            "notifications": _message(
                "Pending notifications, each in its section", schemas.of(NotificationMessage)
            )
        },
        bindings={"ws": {"method": "GET", "headers": headers}},
        **{
            "x-close-codes": {
                str(year): _close_codes(partial(_pelion_code, index))
                for index, year in enumerate((2019, 2020))
            }
        },
    )
