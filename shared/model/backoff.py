"""When a webhook that did not take its batch is tried again (docs/protocols/pelion.md, section 7)."""

_LONGEST_S = 120


def backoff_s(failed: int) -> int:
    """How long to wait after so many failed tries, from the end of the last: 1, 2, 4 … 120, and so on."""
    return min(1 << min(failed - 1, 10), _LONGEST_S)
