"""Commands by callback: each has its reply or its error, in order, whatever another one does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.model.errors import StoreUnavailable
from shared.redis.connection import OnReply
from shared.redis.pipeline import Pipeline, RedisCommands
from shared.store.commands import HOOKS
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

ENDS = ("queue_ends", ["{a}:channel", "{a}:queue"], "0-0")


@pytest.fixture
async def pipeline(valkey: Valkey) -> AsyncIterator[Pipeline]:
    async with Redis(unix_socket_path=valkey.url.removeprefix("unix://")) as client:
        yield Pipeline(client, scripts=load_scripts(), hooks=HOOKS)


class Heard:
    """Replies, in the order in which they came."""

    def __init__(self) -> None:
        self.replies: list[tuple[str, Any]] = []

    def by(self, name: str) -> OnReply:
        return lambda reply: self.replies.append((name, reply))


async def all_of(heard: Heard, count: int) -> list[tuple[str, Any]]:
    await wait_until(lambda: len(heard.replies) == count)
    return heard.replies


async def test_callbacks_and_futures_have_their_replies_in_order(pipeline: Pipeline) -> None:
    heard = Heard()
    written = pipeline.command("SET", "a", "1")
    pipeline.read_then(heard.by("first"), "GET", "a")
    pipeline.command("SET", "a", "2").add_done_callback(lambda _: None)
    pipeline.read_then(heard.by("second"), "GET", "a")

    assert await all_of(heard, 2) == [("first", b"1"), ("second", b"2")]
    assert await written == b"OK"


async def test_an_error_of_one_command_is_its_own_reply(pipeline: Pipeline) -> None:
    heard = Heard()
    pipeline.read_then(heard.by("wrong"), "GET", "a", "b")
    pipeline.read_then(heard.by("right"), "ECHO", "a")

    (_, wrong), right = await all_of(heard, 2)

    assert isinstance(wrong, ResponseError)
    assert right == ("right", b"a")


async def test_a_script_that_the_server_does_not_know_is_sent_again(
    pipeline: Pipeline, valkey: Valkey
) -> None:
    valkey.client().script_flush()
    heard = Heard()
    pipeline.script_then(heard.by("script"), *ENDS)

    [(_, reply)] = await all_of(heard, 1)

    assert not isinstance(reply, Exception)


async def test_a_callback_that_fails_is_reported_and_keeps_nothing_from_others(
    pipeline: Pipeline,
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    heard = Heard()

    def fails(_: Any) -> None:
        raise RuntimeError("a bug")

    pipeline.read_then(fails, "ECHO", "a")
    pipeline.read_then(heard.by("next"), "ECHO", "b")

    assert await all_of(heard, 1) == [("next", b"b")]
    assert [str(each["exception"]) for each in reported] == ["a bug"]
    assert await pipeline.command("ECHO", "c") == b"c"


async def test_a_callback_may_send_more(pipeline: Pipeline) -> None:
    heard = Heard()

    def sends_more(_: Any) -> None:
        pipeline.read_then(heard.by("more"), "ECHO", "b")

    pipeline.read_then(sends_more, "ECHO", "a")

    assert await all_of(heard, 1) == [("more", b"b")]


async def test_callbacks_get_the_loss_of_redis_also_behind_the_pipeline(
    pipeline: Pipeline, valkey: Valkey
) -> None:
    await pipeline.command("PING")
    valkey.kill()
    heard = Heard()
    pipeline.read_then(heard.by("sent"), "ECHO", "a")
    await asyncio.sleep(0)  # it is sent
    waits = pipeline.read_then(heard.by("waits"), "ECHO", "b")
    assert waits is not None
    closed = [waits.is_closed]

    replies = await all_of(heard, 2)

    closed.append(waits.is_closed)
    assert closed == [False, True], "what joined it now would never have a reply"

    assert [name for name, _ in replies] == ["sent", "waits"]
    assert all(isinstance(reply, StoreUnavailable) for _, reply in replies)
    valkey.start()
    valkey.wait_ready()
    await wait_until(lambda: _works(pipeline))


async def _works(pipeline: RedisCommands) -> bool:
    try:
        return bool(await pipeline.command("ECHO", "a") == b"a")
    except StoreUnavailable:
        return False


async def test_a_command_takes_arguments_until_it_is_closed(pipeline: Pipeline) -> None:
    await pipeline.command("MSET", "a", "1", "b", "1")
    heard = Heard()

    command = pipeline.read_then(heard.by("exists"), "EXISTS", "a")
    assert command is not None
    assert not command.is_closed
    command.arguments += ("b",)

    assert await all_of(heard, 1) == [("exists", 2)]
    assert command.packed
