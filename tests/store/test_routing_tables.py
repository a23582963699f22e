"""The cache of routing tables: it reads changes from the log, and the whole table when the log has a gap."""

import asyncio
import gc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.model.api_keys import new_id
from shared.model.bindings import Pattern, Source
from shared.redis.pipeline import Argument
from shared.store import keyspace
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
    assert elsewhere.calls.reads == ["all", "changes"]


async def test_large_table_is_read_in_steps(
    stores: Stores, backend: Backend, redis: Redis, fresh: Callable[[], Gateway]
) -> None:
    """And with changes meanwhile: of fields that were read, of some to come, of new ones and of gone ones."""
    account, name = stores.account_id, keyspace.routing(stores.account_id)
    stores.direct.hset(name, mapping={f"key:{n:032x}": "" for n in range(3000)})
    await stores.routing.add_key(account, new_id())
    steps: list[object] = []

    class Changing(RecordingPipeline):
        def command(self, *arguments: Argument) -> asyncio.Future[Any]:
            if arguments[:2] != ("HSCAN", name):
                return super().command(*arguments)
            steps.append(arguments[2])
            return asyncio.ensure_future(self._between_changes(arguments, len(steps)))

        async def _between_changes(self, arguments: Sequence[Argument], step: int) -> Any:
            await stores.routing.drop_key(account, f"{step:032x}", generation="")
            await stores.routing.add_key(account, new_id())
            return await super().command(*arguments)

    gateway = Routing(Changing(redis, scripts=backend.scripts), compiled)
    table = await table_of(gateway, account)

    stored = {field for field in stores.direct.hkeys(name) if field.startswith(b"key:")}
    assert {f"key:{key}".encode() for key in table.api_keys} == stored
    assert len(steps) >= 5, "a step reads 250 fields, and some more"
    assert content_of(table) == content_of(await table_of(fresh().routing, account))


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
