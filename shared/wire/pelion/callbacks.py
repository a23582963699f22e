"""What is put at /v2/notification/callback, and the request that tries the URL (section 8)."""

from dataclasses import dataclass
from typing import Any

import orjson

from shared.model.callbacks import Callback, callback
from shared.model.errors import Invalid
from shared.wire.pelion.serialization import wanted_of

# What a URL must take before it is registered: a message with nothing in it.
TEST_BODY = b"{}"


@dataclass(frozen=True, slots=True)
class Registration:
    """Where notifications are to go, and how they are wanted: nothing put means the defaults."""

    callback: Callback
    serialization: bytes


def registration_in(body: bytes) -> Registration:
    """The registration in the body of a PUT. Fields we do not know are passed over. Raises Invalid."""
    try:
        posted = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if not isinstance(posted, dict):
        raise Invalid("the body must be an object")
    url = posted.get("url")
    if not isinstance(url, str):
        raise Invalid("must be a string", field="url")
    return Registration(callback(url, _headers(posted.get("headers"))), wanted_of(posted))


def is_json(content_type: str) -> bool:
    """May a body with this Content-Type be JSON? Many clients send none, and then it may."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json", "text/json") or media_type.endswith("+json")


def _headers(posted: Any) -> dict[str, str]:
    if posted is None:
        return {}
    if not isinstance(posted, dict) or not all(isinstance(value, str) for value in posted.values()):
        raise Invalid("must be an object of strings", field="headers")
    return posted
