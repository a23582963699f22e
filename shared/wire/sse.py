"""Streams as Server-Sent Events: bytes of a `text/event-stream` (docs/protocols/sse.md).

Events have no `event` field, so that a page gets them by `onmessage`. What is said about the connection has
one: `recovered`, `overflow` and `end`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from shared.model.channels import CloseReason
from shared.model.streams import NotRecovered, Retained
from shared.wire.close_reasons import CLOSE_ROWS
from shared.wire.cloudevents import PLAIN, plain_kind, plain_time, retained
from shared.wire.stream_ids import beginning, id_at, id_of

MEDIA_TYPE = b"text/event-stream; charset=utf-8"
HEARTBEAT = b":\n\n"
_LINE_BREAK = re.compile(rb"\r\n|\r|\n")


def retry(ms: int) -> bytes:
    """How long the client waits before it connects again."""
    return b"retry: %d\n\n" % ms


def data_of(event: Retained, *, account_id: str) -> bytes:
    """The `data` lines of an event: the same for all readers of its topic."""
    text = retained(event, account_id=account_id)
    # The publisher's bytes may have line breaks, between the tokens of its JSON.
    if b"\n" in text or b"\r" in text:
        text = _LINE_BREAK.sub(b"\ndata: ", text)
    return b"data: %b\n" % text


def event(data: bytes, id: bytes) -> bytes:
    """An event of these `data` lines."""
    return b"%bid: %b\n\n" % (data, id)


def events(topic: str, epoch: str, found: Iterable[Retained], *, account_id: str) -> bytes:
    """Events for readers of this topic alone."""
    texts = [event(data_of(each, account_id=account_id), id_of(topic, epoch, each.offset)) for each in found]
    return texts[0] if len(texts) == 1 else b"".join(texts)


def plain_events(
    topic: str, epoch: str, parts: Iterable[Sequence[bytes]], *, account_id: str
) -> bytes | None:
    """`events`, of their parts in a live wakeup: offset, id, data, name, time and more.

    None unless each is as nearly all are: without a name, a time and more, in one line, its id of letters,
    digits and hyphens.
    """
    kind, begin = plain_kind(account_id, topic), beginning(topic, epoch)
    texts = []
    for offset, event_id, data, name, time, more in parts:
        if name or time or more or b"\n" in data or b"\r" in data:
            return None
        if not event_id.replace(b"-", b"").isalnum():
            return None
        ms, _, number = offset.partition(b"-")
        at_ms = int(ms)
        text = plain_time(at_ms // 1000), at_ms % 1000, offset, data
        texts.append(_PLAIN % (event_id, kind, *text, id_at(begin, at_ms, int(number))))
    return texts[0] if len(texts) == 1 else b"".join(texts)


_PLAIN = b"data: %b\nid: %%b\n\n" % PLAIN


def moved(id: bytes) -> bytes:
    """No event, but the client comes back with this id from now on."""
    return b"id: %b\n\n" % id


def recovered(
    topic: str, *, epoch: str, offset: str, first: str, reason: NotRecovered | None, id: bytes
) -> bytes:
    """Reading goes on behind `offset`. `reason` says why something may be missing before it."""
    said: dict[str, Any] = {
        "topic": topic,
        "recovered": reason is None,
        "epoch": epoch,
        "offset": offset,
        "first": first or None,
    }
    if reason is not None:
        said["reason"] = reason
    return _named(b"recovered", said, id)


def overflow() -> bytes:
    return _named(b"overflow", {"message": CLOSE_ROWS[CloseReason.TOO_SLOW].text, "reconnect": True})


def end(reason: CloseReason) -> bytes:
    row = CLOSE_ROWS[reason]
    return _named(b"end", {"reason": reason, "message": row.text, "reconnect": row.reconnect})


def _named(name: bytes, said: dict[str, Any], id: bytes = b"") -> bytes:
    line = b"id: %b\n" % id if id else b""
    return b"event: %b\ndata: %b\n%b\n" % (name, orjson.dumps(said), line)
