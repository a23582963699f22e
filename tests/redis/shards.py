"""A sharded subscription that runs, and what its listener hears."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from redis.asyncio import Redis

from shared.redis.shard_subscription import ShardSubscription
from shared.runtime.loops import end
from tests.harness.waiting import wait_until


class Heard:
    """What the listener heard: messages of each name, and whether it is confirmed now."""

    def __init__(self) -> None:
        self.messages: dict[bytes, list[bytes]] = {}
        self.confirmed: set[bytes] = set()
        self.losses: list[bytes] = []

    def on_messages(self, messages: Sequence[Sequence[bytes]]) -> None:
        for name, message in messages:
            self.messages.setdefault(name, []).append(message)

    def on_subscribed(self, name: bytes) -> None:
        self.confirmed.add(name)

    def on_lost(self, names: Collection[bytes]) -> None:
        assert self.confirmed.issuperset(names), "only what was confirmed is lost"
        self.confirmed.difference_update(names)
        self.losses += names

    def of(self, name: str) -> list[bytes]:
        return self.messages.get(name.encode(), [])


class Subscribed:
    """A running subscription, and what its listener hears."""

    def __init__(self, redis: Redis) -> None:
        self.heard = Heard()
        self.subscription = ShardSubscription(redis, self.heard)

    async def add(self, *names: str) -> None:
        for name in names:
            self.subscription.add(name)
        await self.confirmed(*names)

    def remove(self, name: str) -> None:
        self.subscription.remove(name)
        self.heard.confirmed.discard(name.encode())

    async def confirmed(self, *names: str) -> None:
        wanted = {name.encode() for name in names}
        await wait_until(lambda: wanted <= self.heard.confirmed, what=lambda: wanted - self.heard.confirmed)


@contextlib.asynccontextmanager
async def subscribed(redis: Redis) -> AsyncIterator[Subscribed]:
    subscribed = Subscribed(redis)
    task = asyncio.create_task(subscribed.subscription.run())
    try:
        yield subscribed
    finally:
        await end(task)


def spublish(direct: Any, name: str, message: object) -> int:
    """How many have heard it."""
    return int(direct.execute_command("SPUBLISH", name, message))


def shard_connections(direct: Any) -> list[str]:
    """The ids of connections that have sharded subscriptions."""
    return [each["id"] for each in direct.client_list() if int(each["ssub"])]
