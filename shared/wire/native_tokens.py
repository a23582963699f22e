"""Tokens as JSON Web Tokens (docs/protocols/tokens.md, sections 2 and 3): form and claims.

RFC 8725 is the rule: the key fixes the algorithm, every claim has a type and a bound, and nothing that two
readers could read differently is taken. Errors quote nothing of a token.
"""

import base64
import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import orjson
from msgspec import Meta

from shared.model import topics
from shared.model.account_channels import id_shown, name_error
from shared.model.errors import Invalid, TokenRefused
from shared.model.grants import LONGEST_S, SKEW_S, Grant, subject_error
from shared.model.token_keys import account_in
from shared.wire.models import convert

AUDIENCE = "notify"
MOST_BYTES = 8 * 1024
MOST_PATTERNS = 100
MOST_CHANNELS = 100

# The end of the year 9999.
_LATEST_S = 253_402_300_799
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_Time = int | float | None


class Head(NamedTuple):
    """What a token says of its signature, before anything of it was verified."""

    kid: str
    algorithm: str


class _Claims(msgspec.Struct):
    """Others are ignored, as JSON Web Tokens do."""

    aud: str | list[str]
    sub: str
    exp: int | float
    nbf: _Time = None
    iat: _Time = None
    jti: Annotated[str, Meta(max_length=255)] | None = None
    read: Annotated[list[str], Meta(max_length=MOST_PATTERNS)] | None = None
    publish: Annotated[list[str], Meta(max_length=MOST_PATTERNS)] | None = None
    channels: Annotated[list[str], Meta(max_length=MOST_CHANNELS)] | None = None


def is_token_like(given: str) -> bool:
    """Whether the text has the form of a token, and not that of an API key's secret."""
    return given.count(".") == 2 and not given.startswith("ak_")


def head_of(token: str) -> Head:
    """What names the key of a token. Raises TokenRefused."""
    if len(token) > MOST_BYTES:
        raise TokenRefused(f"it has over {MOST_BYTES} bytes")
    segments = token.split(".")
    if len(segments) != 3 or not all(map(_SEGMENT.fullmatch, segments)):
        raise TokenRefused("it is no signed JSON Web Token of three parts")
    header = _object_in(_decoded(segments[0]), "its header")
    if "crit" in header or "b64" in header:
        raise TokenRefused("its header has crit or b64, and no such extension is known")
    if not _is_type(header.get("typ", "JWT")):
        raise TokenRefused("the typ of its header is not JWT")
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str):
        raise TokenRefused("its header has no alg")
    if not isinstance(kid, str) or account_in(kid) is None:
        raise TokenRefused("the kid of its header is not the id of a token key")
    return Head(kid, algorithm)


def grant_in(payload: bytes, *, kid: str, now_ms: int) -> Grant:
    """What a payload that this key has signed allows now. Raises TokenRefused."""
    try:
        claims = convert(_object_in(payload, "its payload"), _Claims)
        return _checked(claims, kid, now_ms)
    except Invalid as error:
        raise TokenRefused(error.message, is_genuine=True) from None
    except TokenRefused as error:
        error.is_genuine = True
        raise


def check_patterns(patterns: Sequence[str], field: str) -> None:
    """Raises Invalid, naming the place."""
    for number, pattern in enumerate(patterns):
        if (wrong := topics.pattern_error(pattern)) is not None:
            raise Invalid(wrong, field=f"{field}[{number}]")


def check_channels(channels: Sequence[str], field: str = "channels") -> None:
    """Channels by their names or their ids. Raises Invalid, naming the place."""
    for number, channel in enumerate(channels):
        if id_shown(channel) is None and (wrong := name_error(channel)) is not None:
            raise Invalid(wrong, field=f"{field}[{number}]")


def check_subject(subject: str) -> None:
    """Raises Invalid."""
    if (wrong := subject_error(subject)) is not None:
        raise Invalid(wrong, field="sub")


def _checked(claims: _Claims, kid: str, now_ms: int) -> Grant:
    """Raises TokenRefused, Invalid."""
    if claims.aud != AUDIENCE and (isinstance(claims.aud, str) or AUDIENCE not in claims.aud):
        raise TokenRefused(f"its aud is not {AUDIENCE}")
    check_subject(claims.sub)
    _check_times(claims, now_ms)
    read, publish, channels = claims.read or [], claims.publish or [], claims.channels or []
    check_patterns(read, "read")
    check_patterns(publish, "publish")
    check_channels(channels)
    account_id = account_in(kid)
    assert account_id is not None, "the head was checked"
    return Grant(
        account_id=account_id,
        kid=kid,
        subject=claims.sub,
        read=tuple(read),
        publish=tuple(publish),
        channels=tuple(channels),
        until_ms=math.floor(claims.exp * 1000),
        issued_ms=None if claims.iat is None else claims.iat * 1000,
    )


def _check_times(claims: _Claims, now_ms: int) -> None:
    """Raises TokenRefused. In ms, since `exp` may have a fraction."""
    for name, value in (("exp", claims.exp), ("nbf", claims.nbf), ("iat", claims.iat)):
        if value is not None and not abs(value) <= _LATEST_S:
            raise TokenRefused(f"its {name} is no time in seconds")
    latest_ms = now_ms + SKEW_S * 1000
    if claims.exp * 1000 <= now_ms:
        raise TokenRefused("it has expired")
    if claims.exp * 1000 > latest_ms + LONGEST_S * 1000:
        raise TokenRefused(f"its exp is over {LONGEST_S // 3600} hours ahead")
    if claims.nbf is not None and claims.nbf * 1000 > latest_ms:
        raise TokenRefused("it is not valid yet")
    if claims.iat is None:
        return
    if claims.iat * 1000 > latest_ms:
        raise TokenRefused("its iat is in the future")
    # Otherwise it could outlive the cut-off of its subject, which is kept for as long as a token lasts.
    if claims.exp - claims.iat > LONGEST_S:
        raise TokenRefused(f"its exp is over {LONGEST_S // 3600} hours after its iat")


def _is_type(typ: object) -> bool:
    return isinstance(typ, str) and typ.upper() == "JWT"


def _decoded(segment: str) -> bytes:
    """Raises TokenRefused."""
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise TokenRefused("a part of it is not base64url") from None


def _object_in(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which every name stands once. Raises TokenRefused."""
    try:
        # It refuses NaN and lone surrogates, which the other one takes.
        orjson.loads(text)
        # It tells of repeated names, and keeps integers as they are.
        value = json.loads(text, object_pairs_hook=_once)
    except _Repeated:
        raise TokenRefused(f"{what} has a name twice") from None
    except (ValueError, RecursionError):
        raise TokenRefused(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise TokenRefused(f"{what} is no JSON object")
    return value


class _Repeated(Exception):
    """A name stands twice in an object: two readers could take two values."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated
    return found
