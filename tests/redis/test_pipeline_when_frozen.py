"""Redis accepts and does not reply: the first timeout fails every queued command."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis

from shared.model.errors import StoreUnavailable
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.store.commands import HOOKS
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

# More than fit into three pipelines.
COMMANDS = 3500


class CountedPipeline(Pipeline):
    """Counts the pipelines that are sent."""

    pipelines = 0

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self.pipelines += 1
        super().send(commands, on_replies)


@pytest.fixture
async def pipeline(valkey: Valkey) -> AsyncIterator[CountedPipeline]:
    """It waits half a second for a reply."""
    path = valkey.url.removeprefix("unix://")
    async with Redis(unix_socket_path=path, socket_timeout=0.5) as client:
        yield CountedPipeline(client, scripts=load_scripts(), hooks=HOOKS)


async def test_a_timeout_fails_the_commands_behind_it_too(valkey: Valkey, pipeline: CountedPipeline) -> None:
    await pipeline.command("PING")
    before = pipeline.pipelines

    valkey.freeze()
    outcomes = await asyncio.gather(
        *(pipeline.command("RPUSH", "line", n) for n in range(COMMANDS)), return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} == {HOOKS.unavailable}
    assert pipeline.pipelines == before + 1, "not one timeout for each pipeline"
    valkey.thaw()
    await wait_until(lambda: valkey.answers)
    assert await pipeline.command("ECHO", "again") == b"again"


async def test_a_command_that_failed_in_the_queue_is_never_executed(
    valkey: Valkey, pipeline: CountedPipeline
) -> None:
    await pipeline.command("PING")
    before = pipeline.pipelines
    valkey.freeze()
    first = pipeline.command("SET", "under way", "1")
    await wait_until(lambda: pipeline.pipelines == before + 1)

    behind = pipeline.command("SET", "behind", "1")
    outcomes = await asyncio.gather(first, behind, return_exceptions=True)
    valkey.thaw()
    await wait_until(lambda: valkey.answers)

    assert [type(outcome) for outcome in outcomes] == [HOOKS.unavailable] * 2
    assert await pipeline.command("GET", "behind") is None


async def test_a_new_command_after_a_timeout_is_sent(valkey: Valkey, pipeline: Pipeline) -> None:
    valkey.freeze()
    with pytest.raises(StoreUnavailable):
        await pipeline.command("PING")

    again = pipeline.command("PING")
    valkey.thaw()

    assert await again
