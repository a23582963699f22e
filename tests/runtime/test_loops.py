"""What a process runs in the background ends when it is told to."""

import asyncio

from shared.runtime.loops import end


async def test_a_cancel_that_is_lost_is_repeated() -> None:
    """As a redis-py command does that has just been written."""
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
    assert tasks[1].exception(), "what ended by itself is left as it is"
