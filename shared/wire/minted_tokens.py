"""Bodies of POST /v1/tokens (docs/protocols/tokens.md, section 4)."""

from typing import Annotated

from msgspec import Meta

from shared.model import topics
from shared.model.grants import LONGEST_S, LONGEST_SUBJECT
from shared.wire.models import Closed, Moment
from shared.wire.native_tokens import (
    MOST_CHANNELS,
    MOST_PATTERNS,
    check_channels,
    check_patterns,
    check_subject,
)

DEFAULT_LIFETIME_S = 3600
_Pattern = Annotated[str, Meta(min_length=1, max_length=topics.MAX_LENGTH, examples=["orders.#"])]
_Patterns = Annotated[list[_Pattern], Meta(max_length=MOST_PATTERNS)]
_Subject = Annotated[str, Meta(min_length=1, max_length=LONGEST_SUBJECT, examples=["user-17"])]


class NewToken(Closed):
    """Patterns of topics to read and to publish, and channels to own; what is left out is not allowed."""

    sub: Annotated[_Subject, Meta(description="Whom the token is for, in 128 bytes at most.")]
    read: _Patterns | None = None
    publish: _Patterns | None = None
    channels: Annotated[list[str], Meta(max_length=MOST_CHANNELS)] | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=LONGEST_S)] | None = DEFAULT_LIFETIME_S


class MintedToken(Closed):
    token: str
    expires_at: Moment


def check_new(posted: NewToken) -> None:
    """Raises Invalid, naming the field."""
    check_subject(posted.sub)
    check_patterns(posted.read or [], "read")
    check_patterns(posted.publish or [], "publish")
    check_channels(posted.channels or [])
