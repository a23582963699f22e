"""Frames of this dialect (sections 3 and 4): the data itself, without an envelope."""

import orjson

from shared.model.errors import Invalid, TooLarge
from shared.model.events import Notification

# Existing clients close the socket on a longer frame.
MAX_PUSHED_BYTES = 64 * 1024


def first_frame(session_id: str) -> bytes:
    """The session id, to which back ends can push."""
    return orjson.dumps({"session": session_id})


def frame(notification: Notification) -> bytes:
    """The data of an event, or of a push, as it was posted."""
    return notification.data


def parse_pushed(body: bytes) -> bytes:
    """The unchanged body. Raises Invalid unless it is JSON, or TooLarge."""
    if len(body) > MAX_PUSHED_BYTES:
        raise TooLarge(f"the body is over {MAX_PUSHED_BYTES // 1024} KiB")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    return body
