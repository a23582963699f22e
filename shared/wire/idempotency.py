"""The Idempotency-Key header: quoted as in the IETF draft, or bare as with Stripe."""

import hashlib
import re
from collections.abc import Sequence

from shared.model.errors import Invalid

HEADER = "Idempotency-Key"
_BARE = re.compile(r"[\x20\x21\x23-\x7e][\x20-\x7e]*")
# A string of RFC 8941: only the quote and the backslash are escaped.
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED = re.compile(r"\\(.)")
_LONGEST = 255
_GIVEN = re.compile(rf"[ -~]{{1,{_LONGEST}}}")


def idempotency_key_in(values: Sequence[str]) -> str | None:
    """The key; None without the header. `abc` and `"abc"` are the same key.

    Raises Invalid.
    """
    if not values:
        return None
    if len(values) > 1:
        raise Invalid("must be given once", field=HEADER)
    bare, quoted = _BARE.fullmatch(values[0]), _QUOTED.fullmatch(values[0])
    key = bare[0] if bare else _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""
    if not 1 <= len(key) <= _LONGEST:
        raise Invalid(f"must be 1 to {_LONGEST} printable ASCII characters, or a quoted string", field=HEADER)
    return key


def is_idempotency_key(text: str) -> bool:
    """Whether the text is a key, where it needs no quotes. As a header it has some if it begins with one."""
    return _GIVEN.fullmatch(text) is not None


def fingerprint_of(media_type: str, body: bytes) -> str:
    """A hash of media type and body: the same bytes with another media type are another request."""
    digest = hashlib.sha256(media_type.encode() + b"\n")
    digest.update(body)
    return digest.hexdigest()
