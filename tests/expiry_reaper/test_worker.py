"""The arq worker that starts rounds: how it ends."""

import asyncio

from shared.jobs import reap_worker
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.store.stores import Stores


async def test_a_worker_that_is_stopped_gives_its_job_back(stores: Stores, valkey: Valkey) -> None:
    """While its Redis is there: the event loop would end the job later, and log that Redis had gone."""
    begun = asyncio.Event()

    async def reap() -> None:
        begun.set()
        await asyncio.Event().wait()

    worker = reap_worker(stores.redis, reap, every_s=1, timeout_s=60)
    running = asyncio.create_task(worker.async_run())
    await wait_until(begun.is_set)
    [(job_id, job)] = worker.tasks.items()

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert job.done()
    assert stores.direct.zscore("notify:jobs", job_id), "another worker takes it"
    # It has no TTL until then.
    stores.direct.flushall()
