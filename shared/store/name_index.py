"""An index of names: a sorted set of `<name> NUL <id>`, read in pages in the order of the names' bytes."""

import base64
import binascii

from shared.model.api_keys import is_id
from shared.redis.pipeline import RedisCommands

_ID = 32


def entry_of(name: str, id: str) -> bytes:
    return name.encode() + b"\0" + id.encode()


def id_in(entry: bytes) -> str:
    return entry[-_ID:].decode()


def name_in(entry: bytes) -> str:
    return entry[: -_ID - 1].decode()


async def page(
    redis: RedisCommands, index: str, prefix: str, *, after: str, count: int
) -> tuple[list[bytes], bool]:
    """At most `count` entries whose names begin so, and whether there are more.

    `after` is '' or what `cursor_of` returned for an entry. Raises ValueError for any other.
    """
    low = b"(" + _entry_at(after) if after else b"[" + prefix.encode()
    # No UTF-8 text has this byte.
    high = b"(" + prefix.encode() + b"\xff"
    entries = await redis.command("ZRANGEBYLEX", index, low, high, "LIMIT", 0, count + 1)
    return entries[:count], len(entries) > count


def cursor_of(entry: bytes) -> str:
    return base64.urlsafe_b64encode(entry).decode().rstrip("=")


def _entry_at(cursor: str) -> bytes:
    """Raises ValueError."""
    try:
        entry = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if entry[-_ID - 1 : -_ID] != b"\0" or not is_id(entry[-_ID:].decode("latin-1")):
        raise ValueError
    return entry
