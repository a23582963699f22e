"""Who asks the same before it is sent has the same answer; whoever asks later asks again."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from shared.redis.connection import Call, Command, Then
from shared.redis.pipeline import Pipeline
from shared.store.commands import HOOKS
from shared.store.scripts import load_scripts
from tests.harness.waiting import wait_until
from tests.store.stores import Backend

NAME = ("GET", "name")


class Sent(Pipeline):
    """Remembers the commands of each pipeline."""

    pipelines: list[list[Command]]

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        self.pipelines.append([call.command for call in calls])
        super().begin(calls, then)


@pytest.fixture
def calls(redis: Redis, backend: Backend) -> Sent:
    calls = Sent(redis, scripts=backend.scripts, hooks=HOOKS)
    calls.pipelines = []
    backend.direct.set("name", "1")
    return calls


async def test_who_asks_the_same_at_the_same_time_shares_one_command(calls: Sent) -> None:
    answers = await asyncio.gather(*(calls.read(*NAME) for _ in range(100)))

    assert answers == [b"1"] * 100
    assert calls.pipelines == [[NAME]]


async def test_another_question_has_an_answer_of_its_own(calls: Sent) -> None:
    looks = [calls.read(*NAME), calls.read("GET", "other")]

    assert await asyncio.gather(*looks) == [b"1", None]

    assert calls.pipelines == [[NAME, ("GET", "other")]]


async def test_a_command_is_never_shared(calls: Sent) -> None:
    assert await asyncio.gather(*(calls.command("INCR", "name") for _ in range(3))) == [2, 3, 4]


async def test_who_asks_when_it_was_sent_asks_again(calls: Sent, backend: Backend) -> None:
    """The answer that is under way may be from before the change that this one has heard of."""
    gate = calls.command("BLPOP", "gate", 0)
    early = calls.read(*NAME)
    await wait_until(lambda: calls.pipelines)
    assert calls.pipelines == [[("BLPOP", "gate", 0), NAME]]

    late = [calls.read(*NAME) for _ in range(2)]
    backend.direct.rpush("gate", "open")
    await gate
    assert await early == b"1"

    assert await asyncio.gather(*late) == [b"1", b"1"]
    assert calls.pipelines[1:] == [[NAME]], "the late ones share"


async def test_who_asks_again_sees_what_has_changed(calls: Sent, backend: Backend) -> None:
    assert await calls.read(*NAME) == b"1"

    backend.direct.set("name", "2")

    assert await calls.read(*NAME) == b"2"


@pytest.mark.parametrize("which", [0, 1])
async def test_one_who_gives_up_takes_nothing_from_the_others(calls: Sent, which: int) -> None:
    looks = [calls.read(*NAME) for _ in range(3)]

    looks[which].cancel()

    answers = await asyncio.gather(*looks, return_exceptions=True)
    assert [answer for answer in answers if answer == b"1"] == [b"1", b"1"]
    assert looks[which].cancelled()


async def test_one_who_gives_up_under_way_takes_nothing_from_the_others(
    calls: Sent, backend: Backend
) -> None:
    gate = calls.command("BLPOP", "gate", 0)
    first, second = calls.read(*NAME), calls.read(*NAME)
    await wait_until(lambda: calls.pipelines)

    first.cancel()
    backend.direct.rpush("gate", "open")

    assert await second == b"1"
    await gate


async def test_all_who_share_are_told_of_a_fault() -> None:
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as nobody:
        calls = Pipeline(nobody, scripts=load_scripts(), hooks=HOOKS)

        faults = await asyncio.gather(*(calls.read(*NAME) for _ in range(3)), return_exceptions=True)

        assert [type(fault) for fault in faults] == [HOOKS.unavailable] * 3


async def test_a_fault_is_not_the_answer_of_the_next(calls: Sent, backend: Backend) -> None:
    backend.direct.rpush("line", "1")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await calls.read("GET", "line")

    backend.direct.delete("line")

    assert await calls.read("GET", "line") is None
