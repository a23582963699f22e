"""Background tasks end when they are cancelled, even if a cancellation is lost."""

import asyncio

from shared.runtime.loops import end


async def test_a_lost_cancellation_is_repeated() -> None:
    """As in a redis-py command that has just been written."""
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def loop() -> None:
        await asyncio.wait_for(written, 60)
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ValueError

    tasks = [asyncio.create_task(loop()), asyncio.create_task(fails())]
    await asyncio.wait([tasks[1]])
    written.set_result(None)

    await end(*tasks)

    assert tasks[0].done()
    assert tasks[1].exception(), "a task that ended before keeps its error"
