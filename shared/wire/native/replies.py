"""What a client of the native WebSocket is sent: the text of each frame (docs/protocols/native.md)."""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import orjson

from shared.model.streams import NotRecovered, Retained
from shared.wire.cloudevents import retained
from shared.wire.times import moment_text


class ErrorCode(StrEnum):
    """Why a request is refused."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


def until(subject: str, until_ms: float) -> dict[str, Any]:
    """Whom a socket is for, and when it ends, unless that is never."""
    said: dict[str, Any] = {"sub": subject} if subject else {}
    if until_ms != math.inf:
        said["expires_at"] = moment_text(int(until_ms))
    return said


def hello(session: str, limits: dict[str, int], caller: dict[str, Any]) -> bytes:
    """The first frame. `caller` is of `until`, if the handshake has authenticated one."""
    return orjson.dumps({"hello": {"session": session, "limits": limits, **caller}})


def answer(ref: int, name: str, said: Any) -> bytes:
    """The answer to a request."""
    return orjson.dumps({"ref": ref, name: said})


def published(ref: int, events: bytes) -> bytes:
    """`events` is the JSON array of the response to POST /v1/events."""
    return b'{"ref":%d,"published":%b}' % (ref, events)


def error(ref: int | None, code: ErrorCode, message: str, *, retry_after_s: float | None = None) -> bytes:
    said: dict[str, Any] = {"code": code, "message": message}
    if retry_after_s is not None:
        said["retry_after_s"] = retry_after_s
    return orjson.dumps({"error": said} if ref is None else {"ref": ref, "error": said})


def begun(topic: str, *, epoch: str, offset: str, first: str, reason: NotRecovered | None) -> dict[str, Any]:
    """Reading of a topic goes on behind this place. `reason` says why something is missing before it."""
    said: dict[str, Any] = {"topic": topic, "epoch": epoch, "offset": offset, "recovered": reason is None}
    if first:
        said["first"] = first
    if reason is not None:
        said["reason"] = reason
    return said


def recovered(said: dict[str, Any]) -> bytes:
    """A hole in the middle of a subscription; `said` is of `begun`."""
    return orjson.dumps({"recovered": said})


def events(topic: str, found: Iterable[Retained], *, account_id: str) -> list[bytes]:
    """Events of a topic, the same for all its readers."""
    head = b'{"topic":%b,"offset":"' % orjson.dumps(topic)
    return [
        b'%b%b","event":%b}' % (head, each.offset.encode(), retained(each, account_id=account_id))
        for each in found
    ]


def moved(topic: str, offset: str) -> bytes:
    """Nothing happened for the client, but its place is behind this offset."""
    return orjson.dumps({"moved": {"topic": topic, "offset": offset}})


def ended(topic: str, reason: str) -> bytes:
    """A subscription that has ended by itself."""
    return orjson.dumps({"ended": {"topic": topic, "reason": reason}})


def delivered(channel: str, entry: str, event: bytes, *, is_again: bool) -> bytes:
    """A notification of a channel; `event` is a CloudEvent. `is_again`: it was sent on this socket before."""
    again = b',"redelivered":true' if is_again else b""
    return b'{"channel":%b,"entry":"%b","event":%b%b}' % (
        *(orjson.dumps(channel), entry.encode(), event, again),
    )


def closed(channel: str, reason: str, *, reconnect: bool) -> bytes:
    """The channel is no longer this socket's. `reconnect`: it may be opened again."""
    return orjson.dumps({"closed": {"channel": channel, "reason": reason, "reconnect": reconnect}})
