"""Orders reach a worker whole, and its answers come back, however large; a failure says what happened."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.load.crew import Worker, WorkerFailed

_MANY = 3_000_000
"""Far more than a pipe holds."""


class Echo:
    """A role that says what it was told."""

    async def say(self, *, what: Any) -> Any:
        return what

    async def stumble(self) -> None:
        raise ValueError("over a stone")


@contextlib.contextmanager
def echo() -> Iterator[Worker]:
    worker = Worker("echo", Echo)
    try:
        yield worker
    finally:
        worker.close()


async def test_orders_and_answers_may_be_large() -> None:
    with echo() as worker:
        for _ in range(3):
            assert await worker.do("say", what=b"x" * _MANY) == b"x" * _MANY


async def test_a_failed_order_says_why_and_the_worker_goes_on() -> None:
    with echo() as worker:
        with pytest.raises(WorkerFailed, match="over a stone"):
            await worker.do("stumble")
        assert await worker.do("say", what=1) == 1


async def test_a_worker_that_is_gone_is_noticed() -> None:
    worker = Worker("echo", Echo)
    worker.close()
    with pytest.raises(WorkerFailed, match="gone"):
        await worker.do("say", what=1)
