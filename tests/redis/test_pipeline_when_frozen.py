"""Redis accepts and does not answer: whoever waits hears of it with the first who was let down."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis

from shared.model.errors import StoreUnavailable
from shared.redis.connection import Call, Then
from shared.redis.pipeline import Pipeline
from shared.store.commands import HOOKS
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

# More than go into three pipelines.
CALLS = 3500


class CountedCalls(Pipeline):
    """Counts the pipelines that are sent."""

    pipelines = 0

    def begin(self, calls: Sequence[Call], then: Then) -> None:
        self.pipelines += 1
        super().begin(calls, then)


@pytest.fixture
async def calls(valkey: Valkey) -> AsyncIterator[CountedCalls]:
    """They wait half a second for an answer."""
    path = valkey.url.removeprefix("unix://")
    async with Redis(unix_socket_path=path, socket_timeout=0.5) as client:
        yield CountedCalls(client, scripts=load_scripts(), hooks=HOOKS)


async def test_those_who_wait_behind_a_time_out_are_let_down_with_it(
    valkey: Valkey, calls: CountedCalls
) -> None:
    await calls.command("PING")
    before = calls.pipelines

    valkey.freeze()
    outcomes = await asyncio.gather(
        *(calls.command("RPUSH", "line", n) for n in range(CALLS)), return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} == {HOOKS.unavailable}
    assert calls.pipelines == before + 1, "not each lot after a time-out of its own"
    valkey.thaw()
    await wait_until(lambda: valkey.answers)
    assert await calls.command("ECHO", "again") == b"again"


async def test_what_was_let_down_while_it_waited_never_happens(valkey: Valkey, calls: CountedCalls) -> None:
    await calls.command("PING")
    before = calls.pipelines
    valkey.freeze()
    first = calls.command("SET", "under way", "1")
    await wait_until(lambda: calls.pipelines == before + 1)

    behind = calls.command("SET", "behind", "1")
    outcomes = await asyncio.gather(first, behind, return_exceptions=True)
    valkey.thaw()
    await wait_until(lambda: valkey.answers)

    assert [type(outcome) for outcome in outcomes] == [HOOKS.unavailable] * 2
    assert await calls.command("GET", "behind") is None


async def test_a_new_call_after_a_time_out_is_tried(valkey: Valkey, calls: Pipeline) -> None:
    valkey.freeze()
    with pytest.raises(StoreUnavailable):
        await calls.command("PING")

    again = calls.command("PING")
    valkey.thaw()

    assert await again
