"""Flow control of an HTTP connection that is parsed in shares."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's flow control, which asks the protocol before it reads on."""

    def __init__(self, transport: asyncio.Transport, plan_reading: Callable[[], None]) -> None:
        super().__init__(transport)
        self._plan_reading = plan_reading

    def pause_reading(self) -> None:
        self.read_paused = True
        self._plan_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._plan_reading()

    def detach(self) -> None:
        """Breaks the reference cycle with the protocol, which would wait for the garbage collector."""
        self._plan_reading = _do_nothing


def _do_nothing() -> None:
    pass
