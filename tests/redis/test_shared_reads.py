"""Identical reads that are queued together share one reply; a read after the sending is sent again."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from shared.redis.connection import Arguments, Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.store.commands import HOOKS
from shared.store.scripts import load_scripts
from tests.harness.waiting import wait_until
from tests.store.stores import Backend

NAME = ("GET", "name")


class Sent(Pipeline):
    """Remembers the commands of each pipeline."""

    pipelines: list[list[Arguments]]

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self.pipelines.append([command.arguments for command in commands])
        super().send(commands, on_replies)


@pytest.fixture
def pipeline(redis: Redis, backend: Backend) -> Sent:
    pipeline = Sent(redis, scripts=backend.scripts, hooks=HOOKS)
    pipeline.pipelines = []
    backend.direct.set("name", "1")
    return pipeline


async def test_identical_reads_share_one_command(pipeline: Sent) -> None:
    replies = await asyncio.gather(*(pipeline.read(*NAME) for _ in range(100)))

    assert replies == [b"1"] * 100
    assert pipeline.pipelines == [[NAME]]


async def test_another_read_has_its_own_reply(pipeline: Sent) -> None:
    reads = [pipeline.read(*NAME), pipeline.read("GET", "other")]

    assert await asyncio.gather(*reads) == [b"1", None]

    assert pipeline.pipelines == [[NAME, ("GET", "other")]]


async def test_a_command_is_never_shared(pipeline: Sent) -> None:
    assert await asyncio.gather(*(pipeline.command("INCR", "name") for _ in range(3))) == [2, 3, 4]


async def test_a_read_after_the_sending_is_sent_again(pipeline: Sent, backend: Backend) -> None:
    """The reply under way may be older than the change that caused this read."""
    gate = pipeline.command("BLPOP", "gate", 0)
    early = pipeline.read(*NAME)
    await wait_until(lambda: pipeline.pipelines)
    assert pipeline.pipelines == [[("BLPOP", "gate", 0), NAME]]

    late = [pipeline.read(*NAME) for _ in range(2)]
    backend.direct.rpush("gate", "open")
    await gate
    assert await early == b"1"

    assert await asyncio.gather(*late) == [b"1", b"1"]
    assert pipeline.pipelines[1:] == [[NAME]], "the late reads share one"


async def test_a_later_read_sees_the_change(pipeline: Sent, backend: Backend) -> None:
    assert await pipeline.read(*NAME) == b"1"

    backend.direct.set("name", "2")

    assert await pipeline.read(*NAME) == b"2"


@pytest.mark.parametrize("which", [0, 1])
async def test_a_shielded_read_that_is_cancelled_leaves_the_others_intact(pipeline: Sent, which: int) -> None:
    reads = [asyncio.shield(pipeline.read(*NAME)) for _ in range(3)]

    reads[which].cancel()

    replies = await asyncio.gather(*reads, return_exceptions=True)
    assert replies.count(b"1") == 2
    assert reads[which].cancelled()


async def test_a_read_cancelled_under_way_leaves_the_others_intact(pipeline: Sent, backend: Backend) -> None:
    gate = pipeline.command("BLPOP", "gate", 0)
    first, second = (asyncio.shield(pipeline.read(*NAME)) for _ in range(2))
    await wait_until(lambda: pipeline.pipelines)

    first.cancel()
    backend.direct.rpush("gate", "open")

    assert await second == b"1"
    await gate


async def test_an_error_reaches_every_read_that_shares() -> None:
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as client:
        pipeline = Pipeline(client, scripts=load_scripts(), hooks=HOOKS)

        errors = await asyncio.gather(*(pipeline.read(*NAME) for _ in range(3)), return_exceptions=True)

        assert [type(error) for error in errors] == [HOOKS.unavailable] * 3


async def test_an_error_is_not_the_reply_of_the_next_read(pipeline: Sent, backend: Backend) -> None:
    backend.direct.rpush("line", "1")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await pipeline.read("GET", "line")

    backend.direct.delete("line")

    assert await pipeline.read("GET", "line") is None
