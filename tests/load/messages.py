"""The published requests. An event carries its lane, number and time of sending in the notification's path.

The path is `/lane/number/sent`, each of fixed width, so that every notification has the same size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_PATH = b"/%04d/%09d/%014d"
_PATH_LENGTH = len(_PATH % (0, 0, 0))
_FILL = "A"


@dataclass(frozen=True, slots=True)
class Target:
    """The receivers of an event: the `fan` channels subscribed to a device, or the API key `to`.

    `fan`: None if their number is not known at the moment. `secret` authenticates the publisher, if the
    target's account is not the run's own.
    """

    number: int
    fan: int | None = 1
    to: str | None = None
    topic: str = "device.notifications"
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Template:
    """An event for one target, without lane, number and time."""

    before: bytes
    after: bytes

    def event(self, lane: int, number: int, sent_us: int) -> bytes:
        return self.before + _PATH % (lane, number, sent_us) + self.after


def endpoint_name(number: int) -> str:
    return f"load-{number:05d}"


def template(target: Target, *, size: int) -> Template:
    """A template for notifications of `size` bytes. Raises ValueError if that is too small."""
    item: dict[str, Any] = {"ep": endpoint_name(target.number), "path": "", "ct": "text/plain"}
    bare = len(_compact(item | {"payload": "", "max-age": 0})) + _PATH_LENGTH
    if size < bare:
        raise ValueError(f"a notification has at least {bare} bytes")
    # Base64 has a multiple of 4 characters; the content type takes the remainder.
    fours, rest = divmod(size - bare, 4)
    item["ct"] += "-" * rest
    event: dict[str, Any] = {"topic": target.topic}
    if target.to is not None:
        event["to"] = target.to
    text = _compact(event | {"data": item | {"payload": _FILL * 4 * fours, "max-age": 0}})
    before, after = text.split(b'"path":""')
    return Template(before + b'"path":"', b'"' + after)


def read_path(path: str) -> tuple[int, int, int]:
    """Lane, number and time of sending."""
    _, lane, number, sent_us = path.split("/")
    return int(lane), int(number), int(sent_us)


def request(
    method: str, url: str, *, token: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole HTTP/1.1 request."""
    return head(method, url, token=token, headers=headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def head(method: str, url: str, *, token: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A request up to its Content-Length."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Authorization: Bearer {token}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if method in ("POST", "PUT"):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, ""]).encode()


def batch(events: Sequence[bytes]) -> bytes:
    return events[0] if len(events) == 1 else b"[" + b",".join(events) + b"]"


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
