"""Deleting an account in steps: one that was cut short anywhere goes on, and nothing comes back."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from shared.model.api_keys import Account, ApiKey, Scope, new_id
from shared.model.callbacks import Callback
from shared.model.errors import HasChildren, NoSuchAccount, StoreUnavailable
from shared.model.idempotency import Repeatable
from shared.model.quotas import Quotas
from shared.model.sessions import Dialect, Session
from shared.model.token_keys import Algorithm
from shared.redis.connection import OnReply
from shared.redis.pipeline import Argument, RedisCommands, hand_over
from shared.store import account_deletion, keyspace
from shared.store.account_deletion import AccountDeletion
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.idempotency import Idempotency
from shared.store.quotas import AccountQuotas
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.store.stored_bytes import Stored, StoredBytes
from shared.store.streams import Streams
from shared.store.token_keys import TokenKeys
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns
from tests.harness import leaks
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE, NOW_MS, Stores, events


class Cut:
    """Redis is lost after so many commands."""

    def __init__(self, redis: RedisCommands, *, after: int) -> None:
        self._redis = redis
        self.left = after

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        return self._counted() or self._redis.command(*arguments)

    def script(self, name: str, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        return self._counted() or self._redis.script(name, keys, *arguments)

    def read(self, *arguments: Argument) -> asyncio.Future[Any]:
        return self._counted() or self._redis.read(*arguments)

    def read_then(self, on_reply: OnReply, *arguments: Argument) -> None:
        self.read(*arguments).add_done_callback(partial(hand_over, on_reply))

    def script_then(self, on_reply: OnReply, name: str, keys: Sequence[str], *arguments: Argument) -> None:
        self.script(name, keys, *arguments).add_done_callback(partial(hand_over, on_reply))

    async def scan_page(self, cursor: str, *, count: int) -> tuple[str, list[bytes]]:
        return await self._redis.scan_page(cursor, count=count)

    async def primaries(self) -> Mapping[str, RedisCommands]:
        return await self._redis.primaries()

    def _counted(self) -> asyncio.Future[Any] | None:
        self.left -= 1
        if self.left >= 0:
            return None
        lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lost.set_exception(StoreUnavailable(why="test"))
        lost.exception()
        return lost


def deletion(redis: RedisCommands) -> AccountDeletion:
    """That of a process of its own."""
    wakeups = Wakeups(redis)
    routing = Routing(redis, compiled)
    return AccountDeletion(
        redis,
        api_keys=ApiKeys(redis, routing, wakeups),
        channels=Channels(redis, routing, wakeups),
        sessions=Sessions(redis, routing, wakeups, encode=encode_patterns),
        streams=Streams(redis, routing),
        token_keys=TokenKeys(redis),
    )


def session_of(account_id: str) -> Session:
    return Session(
        id=new_id(),
        dialect=Dialect.KAZOO,
        account_id=account_id,
        owner=f"{EDGE}/1",
        source="",
        destination="",
        connected_at_ms=1,
        bindings=(),
    )


async def with_session(stores: Stores) -> Session:
    session = session_of(stores.account_id)
    await stores.sessions.put(session, ())
    return session


async def filled(stores: Stores) -> str:
    """A new account with some of everything; its id."""
    stores.account_id = account = new_id()
    parent = new_id()
    await stores.api_keys.create_account(Account(id=parent, name="parent"))
    await stores.api_keys.create_account(Account(id=account, name="doomed", parent=parent))
    for _ in range(3):
        channel = await stores.channel()
        await stores.queues.append(channel, events(*range(5)))
        await Idempotency(stores.calls).keep(Repeatable(channel, "key", "f"), b"[1]", runner="a")
    webhook, _ = await stores.api_key()
    callback = Callback("https://example.com/hook", {})
    await stores.channels.put_webhook(account, webhook.id, callback, serialization=b"")
    await asyncio.gather(*stores.routing.learn_device_types(account, {"lamp": "light"}))
    [event] = events(1)
    await stores.receipts.open(account, event, channels=[webhook.id], now_ms=NOW_MS)
    await stores.token_keys.add(account, Algorithm.HS256, "s" * 32, now_ms=NOW_MS)
    await stores.token_keys.cut_off(account, "user")
    sums = StoredBytes(stores.calls, quotas=AccountQuotas(stores.calls, quotas=Quotas()))
    sums.add_receipts(account, 100)
    sums.add(account, Stored.QUEUES, 1000)
    await sums.report()
    # Its first report is followed by a recount.
    await wait_until(lambda: stores.direct.hexists(keyspace.usage(account), "recounted"))
    return account


async def test_a_deletion_that_is_cut_short_anywhere_goes_on(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_deletion, "_REST", 0)
    cut_short, after = True, 0
    while cut_short:
        account = await filled(stores)
        session = await with_session(stores)
        await deletion(stores.calls).begin(account, cascade=True)
        cut = Cut(stores.calls, after=after)
        try:
            await deletion(cut).finish(account)
            cut_short = False
        except StoreUnavailable:
            pass
        unfinished = await deletion(stores.calls).unfinished()
        assert unfinished == ([account] if cut_short else [])
        await deletion(stores.calls).finish(account)
        # As the edge does that holds its socket, whose API key has ended.
        await stores.sessions.drop(session)

        parents = set(leaks.accounts_in(stores.direct))
        left = {name for name in leaks.bytes_left(stores.direct) if name[1:33].decode() not in parents}
        assert left == set(), f"cut after {after} commands"
        assert not stores.direct.exists(*(keyspace.children(parent) for parent in parents))
        stores.direct.flushall()
        after += 1
    assert after > 30


async def test_a_late_writer_brings_nothing_back(stores: Stores) -> None:
    account = await filled(stores)
    channel = await stores.channel()
    await deletion(stores.calls).begin(account, cascade=True)
    await deletion(stores.calls).finish(account)

    key = ApiKey(new_id(), account, "late", frozenset({Scope.RECEIVE}), NOW_MS, "0" * 64)
    with pytest.raises(NoSuchAccount):
        await stores.api_keys.create(key)
    with pytest.raises(NoSuchAccount):
        await stores.api_keys.create_account(Account(id=new_id(), name="late", parent=account))
    assert not await stores.routing.add_key(account, channel)
    await stores.routing.put_session(account, new_id(), b"[]")
    await asyncio.gather(*stores.routing.learn_device_types(account, {"lamp": "light"}))
    sums = StoredBytes(stores.calls, quotas=AccountQuotas(stores.calls, quotas=Quotas()))
    sums.add(account, Stored.QUEUES, 1000)
    await sums.report()
    await AccountQuotas(stores.calls).change(account, quotas={"sockets": 1}, key_quotas={})
    with pytest.raises(NoSuchAccount):
        await stores.token_keys.add(account, Algorithm.HS256, "s" * 32, now_ms=NOW_MS)
    with pytest.raises(NoSuchAccount):
        await stores.token_keys.server_key(account, now_ms=NOW_MS)
    with pytest.raises(NoSuchAccount):
        await stores.token_keys.cut_off(account, "user")

    assert await stores.api_keys.account(account) is None
    left = [name for name in stores.direct.keys("*") if account.encode() in name]
    assert left == [keyspace.account(account).encode()]
    assert 0 < stores.direct.ttl(left[0]) <= 3600


async def test_nothing_is_freed_before_the_deletion_has_begun(stores: Stores) -> None:
    account = await filled(stores)
    before = stores.direct.dbsize()

    await deletion(stores.calls).finish(account)

    assert stores.direct.dbsize() == before


async def test_a_parent_stays_while_it_has_children(stores: Stores) -> None:
    parent, child = new_id(), new_id()
    await stores.api_keys.create_account(Account(id=parent, name="parent"))
    await stores.api_keys.create_account(Account(id=child, name="child", parent=parent))

    with pytest.raises(HasChildren):
        await deletion(stores.calls).begin(parent, cascade=True)

    assert await stores.api_keys.account(parent) is not None
    with pytest.raises(NoSuchAccount):
        await deletion(stores.calls).begin(new_id(), cascade=True)
