"""How far the shutdown of a server has come."""

import asyncio


class Stage:
    """`is_leaving`, from when `stop` is set: each connection ends after its next response. A proxy that keeps
    connections would stay with a process that only says 503. `is_closing`: handshakes are refused too, and
    the port closes.
    """

    def __init__(self, stop: asyncio.Event | None = None) -> None:
        self._stop = stop
        self.is_closing = False

    @property
    def is_leaving(self) -> bool:
        return self._stop is not None and self._stop.is_set()
