"""The one error of this room."""


class RedisUnavailable(Exception):
    """Redis cannot take or answer a command now. Whether a write was done is not known."""

    def __init__(self, *, why: str) -> None:
        super().__init__(f"Redis is unavailable: {why}")
