"""Retry jobs: who keeps the time when their Redis is away."""

import fakeredis
import pytest
from fakeredis import FakeAsyncRedis

from shared.clock import now_ms
from shared.jobs import RetryJobs
from tests.harness.waiting import wait_until


async def test_a_retry_that_no_job_could_be_made_for_comes_from_this_process(
    server: fakeredis.FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    retried: list[str] = []
    server.connected = False
    async with FakeAsyncRedis(server=server) as redis:
        await RetryJobs(redis, retried.append).schedule("a" * 32, failed_attempts=1, at_ms=now_ms() + 100)

    assert "retry.not-scheduled" in caplog.messages
    assert retried == []
    await wait_until(lambda: retried == ["a" * 32])
