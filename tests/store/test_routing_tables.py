"""The cache of routing tables: it reads changes from the log, and the whole table when the log has a gap."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.model.bindings import Pattern, Source
from shared.store import keyspace, routing_tables
from shared.store.random_cache import RandomCache
from shared.store.routing import Routing
from shared.wire.pelion.subscriptions import compiled
from tests.store.routing import (
    A_LAMP,
    CHANGES,
    OTHER,
    Gateway,
    RecordingPipeline,
    content_of,
    one_of_each,
    table_of,
)
from tests.store.stores import Backend, Stores


@pytest.mark.parametrize("name", CHANGES)
async def test_each_change_is_read_from_the_log(
    stores: Stores, elsewhere: Gateway, fresh: Callable[[], Gateway], name: str
) -> None:
    account = stores.account_id
    key = await one_of_each(stores.routing, account)
    before = content_of(await table_of(elsewhere.routing, account))

    await CHANGES[name](stores.routing, account, key)

    after = content_of(await table_of(elsewhere.routing, account))
    assert after[0] != before[0]
    assert after[1:] != before[1:]
    assert after == content_of(await table_of(fresh().routing, account))
    assert elsewhere.calls.reads == ["all", "changes"]


async def test_several_changes_are_read_in_one_call(
    stores: Stores, elsewhere: Gateway, fresh: Callable[[], Gateway]
) -> None:
    account = stores.account_id
    key = await one_of_each(stores.routing, account)
    await table_of(elsewhere.routing, account)

    await stores.routing.put_bindings(account, key, A_LAMP)
    for name in sorted(CHANGES, key="drop a key".__eq__):
        await CHANGES[name](stores.routing, account, OTHER)

    caught_up = content_of(await table_of(elsewhere.routing, account))
    assert caught_up == content_of(await table_of(fresh().routing, account))
    assert elsewhere.calls.reads == ["all", "changes"]


async def test_gateway_too_far_behind_reads_the_whole_table(
    stores: Stores, elsewhere: Gateway, fresh: Callable[[], Gateway]
) -> None:
    account, log = stores.account_id, keyspace.routing_changes(stores.account_id)
    key = await one_of_each(stores.routing, account)
    await table_of(elsewhere.routing, account)

    for number in range(100):
        await stores.routing.put_bindings(account, key, b'["%d"]' % number, source=Source.TOPICS)

    assert stores.direct.llen(log) == 64
    assert 0 < stores.direct.ttl(log) <= 3600
    assert content_of(await table_of(elsewhere.routing, account)) == content_of(
        await table_of(fresh().routing, account)
    )
    assert elsewhere.calls.reads == ["all", "changes", "all"]


async def test_log_of_several_pages(stores: Stores, elsewhere: Gateway) -> None:
    account, key = stores.account_id, new_id()
    name = keyspace.routing(account)
    stores.direct.hset(name, mapping={f"key:{n:032x}": "" for n in range(2000)})
    await stores.routing.add_key(account, key)
    await table_of(elsewhere.routing, account)
    added = [new_id() for _ in range(240)]

    for each in added:
        await stores.routing.add_key(account, each)

    assert set(added) <= (await table_of(elsewhere.routing, account)).api_keys
    # A large table catches up at once, in case that it has changed meanwhile.
    assert elsewhere.calls.reads == ["all", "changes", "changes", "changes"]


GAPS: dict[str, Callable[[Any, str], object]] = {
    "the log is gone": lambda direct, account: direct.delete(keyspace.routing_changes(account)),
    "a change is missing": lambda direct, account: direct.lset(
        keyspace.routing_changes(account), 1, "a b key:x"
    ),
    "the newest is missing": lambda direct, account: direct.lpop(keyspace.routing_changes(account)),
    "a write without a log": lambda direct, account: direct.hset(
        keyspace.routing(account), "version", "older"
    ),
    "all is gone": lambda direct, account: direct.delete(keyspace.routing(account)),
}


@pytest.mark.parametrize("name", GAPS)
async def test_gap_in_the_log_makes_the_gateway_read_the_whole_table(
    stores: Stores, elsewhere: Gateway, fresh: Callable[[], Gateway], name: str
) -> None:
    account = stores.account_id
    key = await one_of_each(stores.routing, account)
    await table_of(elsewhere.routing, account)
    for number in range(3):
        await stores.routing.put_bindings(account, key, b'["%d"]' % number, source=Source.TOPICS)

    GAPS[name](stores.direct, account)

    assert content_of(await table_of(elsewhere.routing, account)) == content_of(
        await table_of(fresh().routing, account)
    )
    assert elsewhere.calls.reads == ["all", "changes", "all"]


async def test_unlogged_write_between_two_changes_is_not_missed(stores: Stores, elsewhere: Gateway) -> None:
    """A release without the log writes between two of ours, during a rolling deploy."""
    account, name = stores.account_id, keyspace.routing(stores.account_id)
    await one_of_each(stores.routing, account)
    await table_of(elsewhere.routing, account)
    unseen, last = new_id(), new_id()

    stores.direct.hset(name, mapping={"version": "older", f"key:{unseen}": ""})
    await stores.routing.add_key(account, last)

    assert {unseen, last} <= (await table_of(elsewhere.routing, account)).api_keys


async def test_failed_update_is_read_again_in_full(
    stores: Stores, redis: Redis, backend: Backend, fresh: Callable[[], Gateway]
) -> None:
    account, faults = stores.account_id, [ValueError("once")]
    await one_of_each(stores.routing, account)

    def compile_with_a_fault(source: Source, stored: bytes) -> tuple[Pattern, ...]:
        if stored == A_LAMP and faults:
            raise faults.pop()
        return compiled(source, stored)

    failing = Routing(RecordingPipeline(redis, scripts=backend.scripts), compile_with_a_fault)
    await table_of(failing, account)
    for change in (CHANGES["add a key"], CHANGES["put bindings"], CHANGES["add a key"]):
        await change(stores.routing, account, OTHER)

    with pytest.raises(ValueError, match="once"):
        await table_of(failing, account)

    anew = await table_of(fresh().routing, account)
    assert content_of(await table_of(failing, account)) == content_of(anew)


async def test_concurrent_updates_read_once(stores: Stores, elsewhere: Gateway) -> None:
    account = stores.account_id
    await one_of_each(stores.routing, account)

    cold = await asyncio.gather(*(table_of(elsewhere.routing, account) for _ in range(50)))
    await stores.routing.add_key(account, new_id())
    await asyncio.gather(*(table_of(elsewhere.routing, account) for _ in range(50)))

    assert len(set(map(id, cold))) == 1
    assert elsewhere.calls.reads == ["all", "changes"]


async def test_large_table_is_built_in_turns_of_the_loop(stores: Stores, elsewhere: Gateway) -> None:
    """Other tasks get their turns meanwhile."""
    account = stores.account_id
    bindings = {f"bindings:{n:032x}": b'[{"endpoint-name":"lamp-%d"}]' % n for n in range(21_000)}
    stores.direct.hset(keyspace.routing(account), mapping={"version": "1", **bindings})
    await elsewhere.calls.command("PING")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    routes = await table_of(elsewhere.routing, account)
    other.cancel()

    assert len(routes.bindings) == 21_000
    assert turns >= 40
    assert gc.isenabled(), "paused only while the table is built"


async def test_changes_while_a_large_table_is_read_are_not_missed(
    stores: Stores, elsewhere: Gateway, fresh: Callable[[], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    account, key = stores.account_id, new_id()
    await one_of_each(stores.routing, account)
    many = {f"key:{n:032x}": "" for n in range(3000)}
    stores.direct.hset(keyspace.routing(account), mapping=many)
    command, pages = elsewhere.calls.command, 0

    async def after_a_change(*arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        for each in range(pages % 3):
            await stores.routing.drop_key(account, f"{10 * pages + each:032x}", generation="")
        if pages == 2:
            await stores.routing.add_key(account, key)
        return await command(*arguments)

    def commanded(*arguments: Any) -> Any:
        if arguments[0] == "HSCAN":
            return asyncio.ensure_future(after_a_change(*arguments))
        return command(*arguments)

    monkeypatch.setattr(elsewhere.calls, "command", commanded)
    table = await table_of(elsewhere.routing, account)

    assert pages > 5
    assert key in table.api_keys
    assert content_of(table) == content_of(await table_of(fresh().routing, account))


async def test_large_tables_push_out_no_small_ones(
    stores: Stores, elsewhere: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_tables, "_SMALL_BYTES", 10_000)
    monkeypatch.setattr(elsewhere.routing.tables, "_large", RandomCache(3_000_000))
    small, large = [new_id() for _ in range(20)], [new_id() for _ in range(3)]
    for account in large:
        keys = {f"key:{n:032x}": "" for n in range(4000)}
        stores.direct.hset(keyspace.routing(account), mapping={"version": "1", **keys})
    for account in [*small, *large]:
        await elsewhere.routing.tables.read(account)

    found = [elsewhere.routing.tables.cached(account)[0] is not None for account in [*small, *large]]
    assert found == [True] * 20 + [False, False, True], "a large one makes room for another"

    # A table that shrinks or grows changes its place.
    stores.direct.delete(keyspace.routing(large[-1]))
    await elsewhere.routing.tables.read(large[-1])
    assert len(elsewhere.routing.tables._large) == 0
    assert elsewhere.routing.tables.cached(large[-1])[0] is not None
