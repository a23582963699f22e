"""Moments as RFC 3339 writes them, `2026-01-31T12:00:00Z`, and as ms since 1970."""

import re
from datetime import UTC, datetime, timedelta

_MS = timedelta(milliseconds=1)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def moment_ms(text: str) -> int | None:
    """The moment that a text names; None when it is none, or does not tell its offset from UTC."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        # The years 1 to 9999 in UTC: what lies beyond could not be told again.
        return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // _MS
    except (ValueError, OverflowError):
        # A 13th month, a 25th hour.
        return None


def moment_text(ms: int) -> str:
    """The moment in UTC, with milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
