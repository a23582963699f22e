"""The body of PUT /v2/notification/callback, and of the test request to its URL (section 8)."""

from typing import Annotated

from msgspec import Meta, Struct

from shared.model.callbacks import LONGEST
from shared.wire.pelion.serialization import SerializationWanted

# A message without notifications. A URL must accept it before it is registered.
TEST_BODY = b"{}"

# `callback` checks the URL; this only documents the outlines of its rules.
_Url = Annotated[
    str,
    Meta(
        description=f"At most {LONGEST} characters, counted with the names and values of the headers.",
        extra_json_schema={"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength": LONGEST},
    ),
]


class RegisterWebhook(Struct):
    """Unknown fields are ignored."""

    url: _Url
    headers: dict[str, str] | None = None
    serialization: SerializationWanted | None = None


def is_json(content_type: str) -> bool:
    """May a body with this Content-Type be JSON? Many clients send none: then it may."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json", "text/json") or media_type.endswith("+json")
