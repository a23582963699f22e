"""What servers have said on connections that stay open, for a check at the end of a test."""

from typing import Any

_MOST = 500
NOTED: list[tuple[str, Any]] = []
"""The channel of the AsyncAPI document, and the frame: those of a test's beginning."""


def note(channel: str, frame: Any) -> None:
    if len(NOTED) < _MOST:
        NOTED.append((channel, frame))
