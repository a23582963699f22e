"""Names that come and go while a sharded subscription runs, and what a server may do to it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.redis import shard_subscription
from shared.redis.client import connect
from shared.runtime.loops import end
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.redis.shards import Subscribed, shard_connections, spublish, subscribed


@pytest.fixture
async def one(valkey: Valkey) -> AsyncIterator[Subscribed]:
    async with connect(valkey.url) as redis, subscribed(redis) as running:
        yield running


@pytest.fixture
def direct(valkey: Valkey) -> Iterator[Any]:
    with valkey.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_subscription, "_RETRY_S", 0.02)


async def test_names_come_and_go_while_it_runs(one: Subscribed, direct: Any) -> None:
    assert not shard_connections(direct), "without a name there is no connection"
    await one.add("a", "b")
    assert [spublish(direct, name, 1) for name in ("a", "b", "c")] == [1, 1, 0]
    await one.add("c")
    one.remove("a")
    await wait_until(lambda: spublish(direct, "a", 2) == 0)
    assert [spublish(direct, name, 2) for name in ("b", "c")] == [1, 1]
    await wait_until(lambda: [one.heard.of(name)[-1:] for name in ("b", "c")] == [[b"2"]] * 2)
    assert one.heard.of("b") == [b"1", b"2"]
    assert len(shard_connections(direct)) == 1, "all of them share one"
    assert not one.heard.losses


async def test_a_name_that_is_removed_and_added_again_is_heard(one: Subscribed, direct: Any) -> None:
    await one.add("a", "b")
    for _ in range(3):
        one.remove("a")
        one.subscription.add("a")
    await one.confirmed("a")
    assert spublish(direct, "a", 1) == 1
    await wait_until(lambda: one.heard.of("a") == [b"1"])
    assert not one.heard.losses


async def test_the_last_name_closes_the_connection_and_the_next_opens_one(
    one: Subscribed, direct: Any
) -> None:
    await one.add("a")
    one.remove("a")
    one.remove("a")
    await wait_until(lambda: not shard_connections(direct))
    await one.add("a")
    assert spublish(direct, "a", 1) == 1
    assert not one.heard.losses, "what was removed is not lost"


async def test_what_was_added_before_it_runs_is_heard(valkey: Valkey, direct: Any) -> None:
    async with connect(valkey.url) as redis:
        running = Subscribed(redis)
        for name in ("a", "b", "c"):
            running.subscription.add(name)
        running.remove("b")
        task = asyncio.create_task(running.subscription.run())
        await running.confirmed("a", "c")
        assert [spublish(direct, name, 1) for name in ("a", "b", "c")] == [1, 0, 1]
        await end(task)
        assert {*running.heard.losses} == {b"a", b"c"}
        again = asyncio.create_task(running.subscription.run())
        await running.confirmed("a", "c")
        await end(again)


async def test_a_killed_connection_is_a_loss_of_its_names_and_is_opened_again(
    one: Subscribed, direct: Any
) -> None:
    await one.add("a", "b")
    for connection in shard_connections(direct):
        direct.client_kill_filter(_id=connection)
    await wait_until(lambda: {*one.heard.losses} == {b"a", b"b"})
    await one.confirmed("a", "b")
    assert spublish(direct, "a", 1) == 1


async def test_a_killed_server_is_found_again(one: Subscribed, valkey: Valkey) -> None:
    await one.add("a")
    valkey.kill()
    await wait_until(lambda: one.heard.losses == [b"a"])
    one.subscription.add("b")
    one.subscription.add("c")
    one.remove("c")
    valkey.start()
    valkey.wait_ready()
    await one.confirmed("a", "b")
    with valkey.client() as direct:
        assert [spublish(direct, name, 1) for name in ("a", "b", "c")] == [1, 1, 0]


async def test_a_name_that_the_user_may_not_hear_keeps_no_other_one_waiting(
    valkey: Valkey, direct: Any, caplog: pytest.LogCaptureFixture
) -> None:
    direct.acl_setuser("us", enabled=True, passwords=["+secret"], channels=["mine:*"], commands=["+@all"])
    path = valkey.url.removeprefix("unix://")
    async with (
        Redis(unix_socket_path=path, username="us", password="secret") as redis,
        subscribed(redis) as running,
    ):
        running.subscription.add("other:1")
        await running.add("mine:1")
        assert spublish(direct, "mine:1", 1) == 1
        await wait_until(
            lambda: "NoPermissionError" in str([vars(each).get("facts") for each in caplog.records])
        )
        direct.acl_setuser("us", channels=["mine:*", "other:*"])
        await running.confirmed("other:1")
        assert not running.heard.losses


async def test_ten_thousand_names_are_confirmed(one: Subscribed, direct: Any) -> None:
    names = [f"name-{number}" for number in range(10_000)]
    await one.add(*names)
    assert spublish(direct, names[-1], 1) == 1
    assert len(shard_connections(direct)) == 1


async def test_an_error_of_the_listener_is_a_loss(
    one: Subscribed, direct: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await one.add("a")
    with monkeypatch.context() as patched:

        def fail(_: Any) -> None:
            raise ValueError("a bug")

        patched.setattr(one.heard, "on_messages", fail)
        spublish(direct, "a", 1)
        await wait_until(lambda: one.heard.losses == [b"a"])
    await one.confirmed("a")
    assert "subscription.failed" in caplog.messages
