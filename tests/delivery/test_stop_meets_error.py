"""A stop that cancels a read in the turn in which its ack fails."""

import asyncio
from typing import Any, cast

import pytest

from shared.delivery.loop import DeliveryLoop, Window
from shared.model.channels import Lease
from shared.model.errors import StoreUnavailable


class Queue:
    """Its first ack fails, its reads never end, and it has lost its tail."""

    def __init__(self) -> None:
        self.acks = 0
        self.was_checked = False

    async def read(self, *_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    async def ack_until(self, *_: Any, **__: Any) -> int:
        self.acks += 1
        if self.acks == 1:
            raise StoreUnavailable(why="OutOfMemoryError")
        return 1

    async def has_reached(self, *_: Any) -> bool:
        self.was_checked = True
        return False


class Receiver:
    window = Window(count=1, size_bytes=1)
    acked_until = "1-0"


@pytest.mark.parametrize("turns", range(5))
async def test_nothing_is_acked_unseen_and_no_error_escapes(turns: int) -> None:
    escaped: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    queue = Queue()
    lease = Lease(channel="c", generation="g", owner="edge/1", previous="")
    loop = DeliveryLoop(cast(Any, queue), lease, cast(Any, Receiver()))
    loop.wake()
    for _ in range(turns):
        await asyncio.sleep(0)

    task = loop._task
    try:
        await loop.stop()
    except StoreUnavailable:
        assert queue.acks == 1
    if task is not None and not task.cancelled():
        assert task.exception() is None
        assert queue.was_checked
        assert queue.acks == 1
    await asyncio.wait_for(loop.wait_idle(), 20)
    assert not escaped
