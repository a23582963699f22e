"""The first frame, and pushed data (sections 3 and 4). All other frames are the data itself."""

import orjson

from shared.model.errors import Invalid, TooLarge

# Existing clients close the socket on a longer frame.
MAX_PUSHED_BYTES = 64 * 1024


def first_frame(session_id: str) -> bytes:
    """The session id, to which back ends can push."""
    return orjson.dumps({"session": session_id})


def parse_pushed(body: bytes) -> bytes:
    """The unchanged body. Raises Invalid unless it is JSON, or TooLarge."""
    if len(body) > MAX_PUSHED_BYTES:
        raise TooLarge(f"the body is over {MAX_PUSHED_BYTES // 1024} KiB")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    return body
