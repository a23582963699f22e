"""A gateway whose table is behind: it repairs a publish before it answers."""

import asyncio
from typing import Any

import fakeredis
import pytest

from shared.model.api_keys import new_id
from shared.model.errors import Invalid, StoreUnavailable, TooLarge
from shared.publish import matching
from shared.publish.matching import EVENTS_A_TURN
from shared.publish.publisher import Publisher
from shared.store import keyspace
from tests.publish.publishing import Gateway, bind, bound_channel, event, posted, queued, turns
from tests.store.stores import Stores


@pytest.fixture
async def channel(gateway: Gateway, stores: Stores) -> str:
    """A channel with a binding that the gateway knows."""
    channel = await bound_channel(stores)
    await gateway.publish(event(0))
    assert await gateway.is_idle()
    return channel


async def test_new_binding_gets_the_publish(gateway: Gateway, stores: Stores, channel: str) -> None:
    added = await bound_channel(stores)

    assert await gateway.publish(event(1)) == [2]

    assert (queued(stores, channel), queued(stores, added)) == (["0", "1"], ["1"])


async def test_removed_binding_does_not_get_it(gateway: Gateway, stores: Stores, channel: str) -> None:
    await bind(stores, channel, "other")

    assert await gateway.publish(event(1)) == [0]

    assert queued(stores, channel) == ["0"]


async def test_channel_that_changed_its_bindings_gets_it_once(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    await bind(stores, channel, "orders", "other")

    assert await gateway.publish(event(1), event(2, "other")) == [1, 1]

    assert queued(stores, channel) == ["0", "1", "2"]


async def test_channel_whose_writer_died_gets_it(gateway: Gateway, stores: Stores, channel: str) -> None:
    version = stores.direct.hget(keyspace.channel(channel), "bindings_version")
    await bind(stores, channel, "orders", "other")
    stores.direct.hset(keyspace.channel(channel), "bindings_version", version)

    assert await gateway.publish(event(1)) == [1]
    assert await gateway.publish(event(2, "other")) == [1]

    assert queued(stores, channel) == ["0", "1", "2"]


async def test_channel_that_is_being_created_is_left_out(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    """Its record is there, and the table still names the one before."""
    stores.direct.hset(keyspace.channel(channel), "generation", "new")
    stores.direct.hdel(keyspace.channel(channel), "bindings_version")

    assert await gateway.publish(event(1)) == [0]

    await stores.routing.add_channel(stores.account_id, channel, generation="new")
    assert await gateway.publish(event(2)) == [1]
    assert queued(stores, channel) == ["0", "2"]


# Errors


async def test_new_addressee_is_accepted(gateway: Gateway, stores: Stores, channel: str) -> None:
    added = await stores.channel()

    assert await gateway.publish(event(1, to=added)) == [1]

    assert queued(stores, added) == ["1"]


async def test_unknown_addressee_is_refused(gateway: Gateway, stores: Stores, channel: str) -> None:
    unknown = new_id()
    for _ in range(2):
        with pytest.raises(Invalid, match="is no channel and no API key of this account"):
            await gateway.publish(event(1), event(2, to=unknown))

    assert queued(stores, channel) == ["0"], "nothing of a refused publish"
    assert await gateway.is_idle()


async def test_revoked_addressee_is_refused(gateway: Gateway, stores: Stores, channel: str) -> None:
    key = await stores.api_keys.find(channel)
    assert key is not None
    await stores.api_keys.revoke(key)

    with pytest.raises(Invalid):
        await gateway.publish(event(1, to=channel))


@pytest.fixture
def small_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_COPIES", 4)
    monkeypatch.setattr(matching, "_WIDE_COPIES", 2)


@pytest.mark.usefixtures("small_quota")
@pytest.mark.parametrize("is_known", [True, False])
async def test_too_large_publish_leaves_nothing(gateway: Gateway, stores: Stores, is_known: bool) -> None:
    """Without a table, or with one in which the publish is wide already."""
    channels = [await bound_channel(stores) for _ in range(3)]
    if is_known:
        await gateway.publish(event(1, "other"))
    channels.append(await bound_channel(stores))
    before = [queued(stores, each) for each in channels]

    with pytest.raises(TooLarge):
        await gateway.publish(event(2), event(3))

    assert [queued(stores, each) for each in channels] == before
    assert await gateway.is_idle()


@pytest.mark.usefixtures("small_quota")
async def test_publish_that_is_no_longer_too_large_is_accepted(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    others = [await bound_channel(stores) for _ in range(4)]
    await gateway.publish(event(1, "other"))
    for other in others:
        await stores.delete_channel(other)

    assert await gateway.publish(event(2)) == [1]


async def test_unreachable_store_ends_what_waits(
    gateway: Gateway, server: fakeredis.FakeServer, stores: Stores, channel: str
) -> None:
    await bound_channel(stores)
    gateway.count_pipelines()

    def disconnect() -> None:
        # The first pipeline finds the table changed; the repair reads it again.
        server.connected = len(gateway.redis.pipelines) < 2

    gateway.redis.before = disconnect
    publishes = [asyncio.ensure_future(gateway.publish(event(1)))]
    while len(gateway.redis.pipelines) < 2:
        publishes.append(asyncio.ensure_future(gateway.publish(event(2))))
        await asyncio.sleep(0)
    assert len(publishes) > 1

    results = await asyncio.gather(*publishes, return_exceptions=True)

    assert [result for result in results if not isinstance(result, StoreUnavailable)] == []
    assert await gateway.is_idle()
    gateway.redis.before, server.connected = None, True
    assert await gateway.publish(event(3)) == [2]


# Order


async def test_publishes_that_wait_for_a_repair_keep_their_order(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    added = await bound_channel(stores)
    publishes = []
    for number in range(1, 30):
        publishes.append(asyncio.ensure_future(gateway.publish(event(number))))
        await asyncio.sleep(0)

    assert await asyncio.gather(*publishes) == [[2]] * 29

    in_order = [str(number) for number in range(1, 30)]
    assert (queued(stores, channel), queued(stores, added)) == (["0", *in_order], in_order)
    assert await gateway.is_idle()


async def test_repair_of_one_account_does_not_hold_up_another(gateway: Gateway) -> None:
    other = new_id()
    await gateway.publish(event(0), account_id=other)
    await turns()

    slow = asyncio.ensure_future(gateway.publish(event(1)))
    quick = asyncio.ensure_future(gateway.publish(event(1), account_id=other))

    done, _ = await asyncio.wait({slow, quick}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {quick}
    assert await slow == [0]


async def test_failing_callback_does_not_stop_the_account(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    failed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    publisher: Publisher = gateway.publisher
    await bound_channel(stores)

    def fails(_: object) -> None:
        raise ConnectionResetError

    # The first one is repaired, the next one not.
    for number in (1, 2):
        publisher.begin(posted(stores.account_id, event(number)), fails)
        assert await gateway.publish(event(number + 2)) == [2]

    assert [type(error) for error in failed] == [ConnectionResetError] * 2
    assert await gateway.is_idle()


@pytest.mark.parametrize("count", [1, EVENTS_A_TURN + 1])
async def test_unexpected_error_of_an_append_ends_the_publish(
    gateway: Gateway, channel: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Many events are matched in a task of their own, whose error would otherwise end nothing."""
    await gateway.publish(event(0))

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.stores.queues, "begin_append", breaks)
        patched.setattr(gateway.stores.queues, "append_then", breaks)
        with pytest.raises(RuntimeError, match="a bug"):
            await asyncio.wait_for(gateway.publish(*map(event, range(1, count + 1))), 20)

    assert await gateway.is_idle()
    assert await gateway.publish(event(count + 1)) == [1]
