"""Wakeups: one message per instance and turn; the subscription says when some may have been missed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum

import pytest
from redis.asyncio import Redis

from shared.redis.client import connect
from shared.redis.pipeline import Pipeline
from shared.runtime.loops import end
from shared.store.commands import HOOKS
from shared.store.inline_entries import parse_wakeups
from shared.store.keyspace import wakeup
from shared.store.scripts import load_scripts
from shared.store.wakeups import (
    Wakeups,
    listen_to_wakeups,
    parse_key_changed,
)
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, OTHER_EDGE, Backend, Stores


class Subscription(StrEnum):
    """A change of the subscription."""

    LOST = "lost"
    RESTORED = "restored"


class Heard:
    """Everything that one instance receives, from its first subscription on: the words of each message."""

    def __init__(self, redis: Redis, instance: str) -> None:
        self.all: list[list[str] | Subscription] = []
        self._task = asyncio.create_task(listen_to_wakeups(redis, instance, listener=self))

    def on_messages(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            words, appends = parse_wakeups([message])
            assert not appends
            self.all.append(sorted(words))

    def on_restored(self) -> None:
        self.all.append(Subscription.RESTORED)

    def on_lost(self) -> None:
        self.all.append(Subscription.LOST)

    async def until(self, *expected: list[str] | Subscription) -> None:
        await wait_until(lambda: len(self.all) >= len(expected), what=lambda: self.all)
        assert self.all == list(expected)

    async def stop(self) -> None:
        await end(self._task)


def words(heard: list[str] | Subscription) -> list[str]:
    assert isinstance(heard, list)
    return heard


@contextlib.asynccontextmanager
async def listening(redis: Redis, instance: str) -> AsyncIterator[Heard]:
    heard = Heard(redis, instance)
    try:
        await heard.until(Subscription.RESTORED)
        yield heard
    finally:
        await heard.stop()


@pytest.fixture
async def heard(redis: Redis) -> AsyncIterator[Heard]:
    """What the first edge receives."""
    async with listening(redis, EDGE) as heard:
        yield heard


async def test_subscription_begins_with_restored(heard: Heard) -> None:
    assert heard.all == [Subscription.RESTORED]


async def test_wakeup_reaches_only_the_owners_instance(heard: Heard, redis: Redis, stores: Stores) -> None:
    async with listening(redis, OTHER_EDGE) as other:
        stores.wakeups.send(f"{EDGE}/7", "a")
        await heard.until(Subscription.RESTORED, ["a"])
        stores.wakeups.send(f"{OTHER_EDGE}/7", "b")
        await other.until(Subscription.RESTORED, ["b"])

        assert heard.all == [Subscription.RESTORED, ["a"]]


async def test_wakeups_of_one_turn_are_one_message_per_instance(
    heard: Heard, redis: Redis, stores: Stores
) -> None:
    async with listening(redis, OTHER_EDGE) as other:
        for claim in range(3):
            stores.wakeups.send(f"{EDGE}/{claim}", f"channel-{claim}")
            stores.wakeups.send(f"{OTHER_EDGE}/{claim}", "same")
        await heard.until(Subscription.RESTORED, ["channel-0", "channel-1", "channel-2"])
        await other.until(Subscription.RESTORED, ["same"])


async def test_key_changed_differs_from_a_wakeup_of_its_channel(heard: Heard, stores: Stores) -> None:
    stores.wakeups.send(f"{EDGE}/1", "a")
    stores.wakeups.send_key_changed(f"{EDGE}/1", "a")

    await wait_until(lambda: len(heard.all) == 2, what=lambda: heard.all)
    assert [parse_key_changed(word) for word in words(heard.all[1])] == [None, "a"]


async def test_wakeups_of_two_turns_are_two_messages(heard: Heard, stores: Stores) -> None:
    stores.wakeups.send(f"{EDGE}/1", "a")
    await heard.until(Subscription.RESTORED, ["a"])
    stores.wakeups.send(f"{EDGE}/1", "b")
    await heard.until(Subscription.RESTORED, ["a"], ["b"])


async def test_wakeup_of_a_dead_instance_is_harmless(heard: Heard, stores: Stores) -> None:
    stores.wakeups.send("gone/instance/1", "a")
    stores.wakeups.send(f"{EDGE}/1", "b")

    await heard.until(Subscription.RESTORED, ["b"])


async def test_lost_wakeups_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as unreachable:
        wakeups = Wakeups(Pipeline(unreachable, scripts=load_scripts(), hooks=HOOKS))

        wakeups.send(f"{EDGE}/1", "a")
        wakeups.send(f"{OTHER_EDGE}/1", "a")
        await wait_until(lambda: "wakeup.lost" in caplog.messages)

    assert caplog.messages.count("wakeup.lost") == 1


async def test_the_end_of_the_listener_unsubscribes(backend: Backend) -> None:
    def subscribers() -> int:
        [(_, count)] = backend.direct.pubsub_numsub(wakeup(EDGE))
        return int(count)

    async with backend.connect() as redis:
        async with listening(redis, EDGE):
            assert subscribers() == 1
        await wait_until(lambda: subscribers() == 0)


async def test_broken_connection_is_resubscribed(backend: Backend) -> None:
    async with backend.connect() as redis, listening(redis, EDGE) as heard:
        backend.direct.client_kill_filter(_type="pubsub")
        await heard.until(Subscription.RESTORED, Subscription.LOST, Subscription.RESTORED)

        backend.direct.publish(wakeup(EDGE), "a b")
        await heard.until(Subscription.RESTORED, Subscription.LOST, Subscription.RESTORED, ["a", "b"])


async def test_restarted_server_is_resubscribed(valkey: Valkey) -> None:
    async with connect(valkey.url) as redis, listening(redis, EDGE) as heard:
        valkey.kill()
        valkey.start()
        valkey.wait_ready()
        await heard.until(Subscription.RESTORED, Subscription.LOST, Subscription.RESTORED)

        Wakeups(Pipeline(redis, scripts=load_scripts(), hooks=HOOKS)).send(f"{EDGE}/1", "a")
        await heard.until(Subscription.RESTORED, Subscription.LOST, Subscription.RESTORED, ["a"])


async def test_url_with_protocol_3_is_subscribed(valkey: Valkey) -> None:
    async with connect(f"{valkey.url}?protocol=3") as redis, listening(redis, EDGE) as heard:
        await redis.publish(wakeup(EDGE), "a")
        await heard.until(Subscription.RESTORED, ["a"])
