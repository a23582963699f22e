"""What is known of a call when it is over, in bounded memory."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

_HEADERS = 32
_NAME_LIMIT = 100
_VALUE_LIMIT = 1024
_HEADERS_LIMIT_BYTES = 4 * 1024
_RETRY_AFTER_LIMIT = 64


OK_OR_NO_CONTENT = (200, 204)


@dataclass(slots=True)
class Attempt:
    """The result of one call, which a status of `success` accepts. `error` is "" if there was a response,
    else one of these:

    address-refused, not-resolved, not-connected, tls-failed, closed, bad-answer, timed-out, and not-sendable
    for a URL or headers that make no valid request. `was_reached`: a connection carried the request, so a
    receiver that is out of time got at least its beginning. `detail` says in words what was wrong, for the
    owner of the webhook. `response_headers` have lower-case names; they and `response_body` are what fits in
    bounds (4 KiB and 2 KiB), and empty if what follows the status line is no HTTP.
    """

    status: int | None
    error: str
    took_ms: int
    was_reached: bool = False
    retry_after: str = ""
    location: str = ""
    response_headers: Mapping[str, str] = field(default_factory=dict)
    response_body: bytes = b""
    detail: str = ""
    success: Container[int] = OK_OR_NO_CONTENT

    @property
    def accepted(self) -> bool:
        return self.status is not None and self.status in self.success

    @property
    def outcome(self) -> str:
        """`accepted`, `4xx` and the like, or the error: few enough values for a metric's label."""
        return "accepted" if self.accepted else self.error or f"{(self.status or 0) // 100}xx"


@dataclass(slots=True)
class Head:
    """What is kept of a response's headers."""

    headers: Mapping[str, str]
    retry_after: str
    location: str


def head_of(headers: Mapping[str, str]) -> Head:
    """`headers` may name one more than once; its values are then joined, except those with one meaning."""
    kept: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in headers.items():
        name, value = printable(raw_name)[:_NAME_LIMIT].lower(), printable(raw_value)[:_VALUE_LIMIT]
        size += len(name) + len(value)
        if size > _HEADERS_LIMIT_BYTES or (name not in kept and len(kept) >= _HEADERS):
            break
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return Head(
        kept,
        printable(headers.get("Retry-After", ""))[:_RETRY_AFTER_LIMIT],
        printable(headers.get("Location", ""))[:_VALUE_LIMIT],
    )


def printable(text: str) -> str:
    """What a receiver sent, for JSON and terminals: no half of a surrogate, no control character."""
    known = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in known)
