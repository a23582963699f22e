"""The wall clock of this process. `shared/model` and `shared/wire` take `now_ms` as a parameter."""

import time


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
