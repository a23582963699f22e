"""A deadline for what one task does, as `asyncio.timeout` at a third of its price: each call has one."""

import asyncio
from types import TracebackType


class Deadline:
    """Cancels what the task of the caller awaits in the `with` block, which then raises TimeoutError."""

    __slots__ = ("_cancelling", "_has_passed", "_limit_s", "_loop", "_task", "_timer")

    def __init__(self, limit_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._limit_s = limit_s
        self._loop = loop
        self._has_passed = False

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None, "a coroutine runs in a task"
        self._task, self._cancelling = task, task.cancelling()
        self._timer = self._loop.call_later(self._limit_s, self._pass)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Unless someone else has cancelled the task too.
        if self._has_passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _pass(self) -> None:
        self._has_passed = True
        self._task.cancel()
