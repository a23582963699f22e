"""Times as RFC 3339 texts (`2026-01-31T12:00:00Z`) and as ms since 1970."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_IN_UTC = _EPOCH.replace(tzinfo=None)
_MS = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def moment_ms(text: str) -> int | None:
    """The time in ms; None for a text that is no time, or has no offset from UTC."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        # OverflowError for a year outside 1 to 9999 in UTC: `moment_text` could not write it.
        return (moment.astimezone(UTC) - _EPOCH) // _MS
    except (ValueError, OverflowError):
        # ValueError for a 13th month or a 25th hour.
        return None


def moment_text(ms: int) -> str:
    """The time in UTC, with milliseconds."""
    return f"{_second_text(ms // 1000)}.{ms % 1000:03}Z"


# Many events are of one second.
@lru_cache(maxsize=1024)
def _second_text(second: int) -> str:
    # Without a zone, as it is the zone that makes `isoformat` slow.
    return (_EPOCH_IN_UTC + second * _SECOND).isoformat(timespec="seconds")


def moment_or_none(ms: int | None) -> str | None:
    return None if ms is None else moment_text(ms)
