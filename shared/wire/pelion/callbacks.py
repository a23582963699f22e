"""The body of PUT /v2/notification/callback, and of the test request to its URL (section 8)."""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shared.model.callbacks import LONGEST, Callback, callback
from shared.wire.models import parse
from shared.wire.pelion.serialization import SerializationWanted, stored_form

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
    url: _Url
    headers: dict[str, str] | None = None
    serialization: SerializationWanted | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """Where notifications go, and in which serialization (stored form; empty for the default)."""

    callback: Callback
    serialization: bytes


_REGISTRATION = msgspec.json.Decoder(RegisterWebhook)


def registration_in(body: bytes) -> Registration:
    """The registration in the body of a PUT. Ignores unknown fields. Raises Invalid."""
    posted = parse(_REGISTRATION, body)
    return Registration(callback(posted.url, posted.headers or {}), stored_form(posted.serialization))


def is_json(content_type: str) -> bool:
    """May a body with this Content-Type be JSON? Many clients send none: then it may."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json", "text/json") or media_type.endswith("+json")
