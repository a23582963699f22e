"""Who may read which streams, and that a removed binding ends a reader."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.socket_edge.streams.stream_rights import BoundReader, StreamRights
from shared.model.bindings import Source
from shared.model.errors import StoreUnavailable
from shared.model.streams import Keep, StreamRule
from shared.runtime.http.responses import Problem
from shared.runtime.loops import in_background
from shared.store.routing import Routing
from tests.harness.waiting import wait_until
from tests.store.stores import Stores

RULES = [StreamRule(["orders.#", "free"], Keep(10, 1000))]


class Reader:
    """What is asked of a reader."""

    def __init__(self, account_id: str, api_key_id: str, *topics: str) -> None:
        self.credential = SimpleNamespace(account_id=account_id, api_key_id=api_key_id)
        self.topics = topics
        self.is_held = True
        self.unbound: Collection[str] = ()

    async def on_unbound(self, topics: Collection[str]) -> None:
        self.unbound = topics


Bind = Callable[..., Awaitable[None]]


@pytest.fixture
async def key(stores: Stores) -> str:
    made, _ = await stores.api_key()
    await stores.streams.put_rules(stores.account_id, RULES)
    return made.id


@pytest.fixture
async def bind(stores: Stores, key: str) -> Bind:
    async def bind(*patterns: object) -> None:
        stored = json.dumps(patterns).encode()
        await stores.routing.put_bindings(stores.account_id, key, stored, source=Source.TOPICS)

    return bind


@pytest.fixture
async def rights(stores: Stores) -> AsyncIterator[StreamRights]:
    rights = StreamRights(stores.routing, stores.streams)
    async with in_background(rights.run):
        yield rights


@pytest.mark.parametrize(
    ("bindings", "topics", "refused"),
    [
        (["orders.paid"], ["orders.paid"], None),
        (["orders.*", "free"], ["orders.paid", "orders.sent", "free"], None),
        (["#"], ["orders.paid"], None),
        ([], ["orders.paid"], (403, "orders.paid")),
        (["orders.*"], ["orders.paid", "free"], (403, "free")),
        (["orders.*"], ["orders.paid.late"], (403, "orders.paid.late")),
        ([{"topic": "orders.*", "where": {"a": 1}}], ["orders.paid"], (403, "orders.paid")),
        ([{"topic": "orders.*"}], ["orders.paid"], None),
        (["#"], ["orders.paid", "stock"], (404, "stock")),
        (["free"], ["stock", "free"], (403, "stock")),
    ],
)
async def test_a_topic_must_be_bound_without_conditions_and_have_a_rule(
    stores: Stores,
    rights: StreamRights,
    key: str,
    bind: Bind,
    bindings: list[object],
    topics: list[str],
    refused: tuple[int, str] | None,
) -> None:
    if bindings:
        await bind(*bindings)
    if refused is None:
        await check(rights, stores.account_id, key, topics)
        return
    with pytest.raises(Problem) as problem:
        await check(rights, stores.account_id, key, topics)
    status, topic = refused
    assert problem.value.status_code == status
    assert f"the topic {topic} " in problem.value.detail


async def check(rights: StreamRights, account_id: str, key: str, topics: list[str]) -> None:
    await rights.check_bound(account_id, key, topics)
    await rights.check_streams(account_id, topics)


async def test_a_removed_binding_ends_its_readers_alone(
    stores: Stores, rights: StreamRights, key: str, bind: Bind
) -> None:
    await bind("orders.*", "free")
    readers = [
        Reader(stores.account_id, key, *topics) for topics in (["free"], ["orders.a", "free"], ["orders.a"])
    ]
    another, _ = await stores.api_key()
    theirs = Reader(stores.account_id, another.id, "free")
    await bind("orders.*")
    gone = Reader(stores.account_id, key, "free")
    gone.is_held = False
    for reader in (gone, *readers, theirs):
        rights.check_again(cast(BoundReader, reader))
    await wait_until(lambda: theirs.unbound)
    await wait_until(lambda: readers[0].unbound)
    assert [reader.unbound for reader in readers] == [["free"], ["free"], ()]
    assert gone.unbound == ()


async def test_redis_away_ends_nobody(
    stores: Stores, key: str, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bind("free")
    calls = 0

    async def bindings(*_: Any) -> bytes | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable(why="test")
        return b"[]"

    monkeypatch.setattr(Routing, "bindings", bindings)
    monkeypatch.setattr("services.socket_edge.streams.stream_rights._RETRY_S", 0)
    rights = StreamRights(stores.routing, stores.streams)
    reader = Reader(stores.account_id, key, "free")
    async with in_background(rights.run):
        rights.check_again(cast(BoundReader, reader))
        await wait_until(lambda: calls == 1)
        assert reader.unbound == ()
        rights.check_again(cast(BoundReader, reader))
        await wait_until(lambda: bool(reader.unbound))
