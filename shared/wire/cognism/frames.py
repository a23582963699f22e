"""What travels on a socket of this dialect (sections 3 and 4): no envelope, the data itself."""

import orjson

from shared.model.errors import Invalid, TooLarge
from shared.model.events import Notification

# Clients in use close a socket on which a longer frame comes.
MAX_PUSHED_BYTES = 64 * 1024


def first_frame(session_id: str) -> bytes:
    """Tells the client under which id it can be pushed to."""
    return orjson.dumps({"session": session_id})


def frame(notification: Notification) -> bytes:
    """An event's data as it was published, or what was pushed as it was posted."""
    return notification.data


def parse_pushed(body: bytes) -> bytes:
    """The body as it came, if it is JSON. Raises Invalid or TooLarge."""
    if len(body) > MAX_PUSHED_BYTES:
        raise TooLarge(f"the body is over {MAX_PUSHED_BYTES // 1024} KiB")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    return body
