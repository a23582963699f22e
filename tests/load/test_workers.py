"""Calls to workers and their results may be large; a failure carries the worker's error."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.load.workers import Worker, WorkerFailed

_MANY = 3_000_000
"""Far more than the buffer of a pipe."""


class Echo:
    """A role that returns its argument or fails."""

    async def echo(self, *, value: Any) -> Any:
        return value

    async def fail(self) -> None:
        raise ValueError("on purpose")


@contextlib.contextmanager
def echo() -> Iterator[Worker]:
    worker = Worker("echo", Echo)
    try:
        yield worker
    finally:
        worker.close()


async def test_arguments_and_results_may_be_large() -> None:
    with echo() as worker:
        for _ in range(3):
            assert await worker.call("echo", value=b"x" * _MANY) == b"x" * _MANY


async def test_a_failed_call_carries_the_error_and_the_worker_continues() -> None:
    with echo() as worker:
        with pytest.raises(WorkerFailed, match="on purpose"):
            await worker.call("fail")
        assert await worker.call("echo", value=1) == 1


async def test_calling_an_exited_worker_fails() -> None:
    worker = Worker("echo", Echo)
    worker.close()
    with pytest.raises(WorkerFailed, match="gone"):
        await worker.call("echo", value=1)
