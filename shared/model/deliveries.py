"""A delivery is one attempt to hand a batch to a webhook, and what is kept of it for who looks for a fault.

Of a success that is little: there is one for every batch. Of a failure it is also what was sent and answered,
without its secrets, and never more than a bound.
"""

import base64
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

EXCERPT_BYTES = 2048
# Ids beyond this are not kept: a batch may have hundreds, each of 255 characters.
EVENTS_BYTES = 4096
HIDDEN = "***"

_HEADERS_BYTES = 4096
# The value of a header of an answer may be cut from here on.
_LONG_VALUE = 1024
# Shorter ones would hide ordinary words of an answer, and protect nothing.
_SECRET_FROM = 6
_SECRET = re.compile(
    r"auth|cookie|token|secret|signature|password|passwd|credential|session|api-?key|access-?key|(^|-)key$",
    re.IGNORECASE,
)


class AttemptOutcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The first bytes of a body: as text if they are UTF-8, else in Base64."""

    text: str = ""
    is_base64: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that failed, with its answer if there was one. Its headers have no secrets any more.

    `body_bytes` is the length of the whole request's body.
    """

    headers: Mapping[str, str]
    body: Excerpt
    body_bytes: int
    answer_headers: Mapping[str, str]
    answer: Excerpt


# Not frozen: each attempt makes one, and that takes three times as long.
@dataclass(slots=True)
class Delivery:
    """One attempt. `status` is the receiver's; without a response it is None, and `error` says why, `detail`
    in words. `next_attempt_ms` is when the batch is retried, if it is.

    `count` is the number of its notifications, `events` are their ids, as far as they have room. `again` is
    `resend` or `replay` if one of these was queued once more. Only a failure has an `exchange`, and only what
    was read from Redis `id` and `outcome`.
    """

    at_ms: int
    webhook_id: str
    count: int
    status: int | None
    error: str
    took_ms: int
    next_attempt_ms: int | None = None
    url: str = ""
    method: str = ""
    detail: str = ""
    again: str = ""
    events: tuple[str, ...] = ()
    exchange: Exchange | None = field(default=None, repr=False)
    id: str = ""
    outcome: AttemptOutcome | None = None


def events_kept(ids: Iterable[str]) -> tuple[str, ...]:
    """The first ids, as many as an attempt keeps."""
    kept, left = [], EVENTS_BYTES
    for each in ids:
        left -= len(each.encode()) + 1
        if left < 0:
            break
        kept.append(each)
    return tuple(kept)


def exchange(
    headers: Mapping[str, str],
    body: bytes,
    answer: bytes = b"",
    *,
    answer_headers: Mapping[str, str] | None = None,
    secret_headers: Collection[str] = (),
) -> Exchange:
    """What is kept of a failure, without secrets: the headers in `secret_headers`, and those so named.

    A receiver may send back what it got: so their values are hidden in its answer too.
    """
    named = {name.lower() for name in secret_headers}
    secrets = _secrets(headers, named)
    return Exchange(
        headers=_shown(headers, named),
        body=excerpt(body),
        body_bytes=len(body),
        answer_headers=_headers_without(_shown(answer_headers or {}, named), secrets),
        answer=excerpt(_without(answer, secrets, is_cut=len(answer) >= EXCERPT_BYTES)),
    )


def answer_without_secrets(
    answer: bytes, headers: Mapping[str, str], *, secret_headers: Collection[str] = ()
) -> bytes:
    """The beginning of an answer to a request with these headers, without the values of secret ones."""
    secrets = _secrets(headers, {name.lower() for name in secret_headers})
    return _without(answer, secrets, is_cut=len(answer) >= EXCERPT_BYTES)


def excerpt(body: bytes) -> Excerpt:
    """The first 2 KiB. A character that the end cuts is left out."""
    first = body[:EXCERPT_BYTES]
    for cut in range(4 if len(body) >= EXCERPT_BYTES else 1):
        try:
            return Excerpt(first[: len(first) - cut].decode())
        except UnicodeDecodeError:
            continue
    return Excerpt(base64.b64encode(first).decode(), is_base64=True)


def _is_secret(name: str, named: Collection[str]) -> bool:
    return name.lower() in named or _SECRET.search(name) is not None


def _shown(headers: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """As many as an attempt keeps, without the values of secret ones."""
    shown, left = {}, _HEADERS_BYTES
    for name, value in headers.items():
        text = HIDDEN if _is_secret(name, named) else value
        left -= len(name) + len(text)
        if left < 0:
            break
        shown[name] = text
    return shown


def _secrets(headers: Mapping[str, str], named: Collection[str]) -> list[bytes]:
    return _forms(value for name, value in headers.items() if _is_secret(name, named))


def _forms(values: Iterable[str]) -> list[bytes]:
    """How these values may appear in an answer: as they are, in their parts (`Bearer …`), or inside JSON."""
    parts = {part for value in values for part in (value, *re.split(r"[\s;,=]+", value))}
    secrets = {part for part in parts if len(part) >= _SECRET_FROM}
    forms = {form.encode() for part in secrets for form in (part, _in_json(part))}
    return sorted(forms, key=len, reverse=True)


def _in_json(value: str) -> str:
    """Printable ASCII, as a header's value is."""
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _without(answer: bytes, secrets: Sequence[bytes], *, is_cut: bool = False) -> bytes:
    """The answer without these. If it was cut, nor with the beginning of one at its end."""
    for secret in secrets:
        answer = answer.replace(secret, HIDDEN.encode())
    return _uncut(answer, secrets, is_cut=is_cut)


def _uncut(answer: bytes, secrets: Sequence[bytes], *, is_cut: bool) -> bytes:
    overlap = max((_overlap(answer, secret) for secret in secrets), default=0) if is_cut else 0
    return answer[: len(answer) - overlap]


def _headers_without(headers: Mapping[str, str], secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers of an answer without these secrets.

    Replaced in all of them at once: a request may have a thousand secrets, an answer a hundred headers.
    """
    together = "\0".join(value.replace("\0", " ") for value in headers.values())
    values = _without(together.encode(), secrets).split(b"\0")
    return {
        name: _uncut(value, secrets, is_cut=len(headers[name]) >= _LONG_VALUE).decode(errors="replace")
        for name, value in zip(headers, values, strict=False)
    }


def _overlap(answer: bytes, secret: bytes) -> int:
    """How many bytes at the end of the answer are the beginning of the secret."""
    longest = min(len(answer), len(secret) - 1)
    return next((size for size in range(longest, 0, -1) if answer.endswith(secret[:size])), 0)
