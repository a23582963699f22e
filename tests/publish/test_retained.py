"""What a publish retains: in its round, in order, once, and with its offset in the answer."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from redis.exceptions import OutOfMemoryError

from shared.model.errors import DeadlinePassed, StoreUnavailable
from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.model.streams import Keep, Published, StreamRule
from shared.publish.request import pack_counts, response_body, unpack_counts
from shared.redis.connection import Command, OnReplies
from shared.store.streams import STREAM_LOT
from tests.publish.conftest import NewGateway
from tests.publish.publishing import Gateway, bind, bound_channel, event, posted, queued
from tests.store.stores import HOUR_MS, Stores

KEEP = Keep(10_000, HOUR_MS)


async def put_rules(stores: Stores, *patterns: str) -> None:
    await stores.streams.put_rules(stores.account_id, [StreamRule(patterns, KEEP)] if patterns else [])


async def retained(stores: Stores, topic: str = "orders") -> list[str]:
    """The ids of the events in a stream."""
    found: list[str] = []
    after = "0-0"
    while page := await stores.streams.read(
        stores.account_id, topic, after=after, count=100, size_bytes=10**7
    ):
        found += [each.event.id for each in page]
        after = page[-1].offset
    return found


def offsets_in(published: list[int]) -> dict[int, str]:
    return published.offsets if isinstance(published, Published) else {}


async def test_an_event_is_retained_beside_its_queues_in_one_round_trip(
    gateway: Gateway, stores: Stores
) -> None:
    channel = await bound_channel(stores)
    await put_rules(stores, "orders", "kept.#")
    await gateway.publish(event(0))
    gateway.count_pipelines()

    published = await gateway.publish(event(1), event(2, "other"), event(3, "kept.here"), event(4))
    assert gateway.count_pipelines() == 1
    assert published == [1, 0, 0, 1]
    assert list(offsets_in(published)) == [0, 3, 2]
    assert queued(stores, channel) == ["0", "1", "4"] == await retained(stores)
    assert await retained(stores, "kept.here") == ["3"]
    assert await retained(stores, "other") == []
    found = await stores.streams.find(stores.account_id, "3")
    assert found is not None
    assert found.offset == offsets_in(published)[2]


async def test_an_account_without_rules_sends_what_it_sent(gateway: Gateway, stores: Stores) -> None:
    await bound_channel(stores)
    await gateway.publish(event(0))
    gateway.redis.pipelines.clear()
    assert type(await gateway.publish(event(1))) is list
    [commands] = gateway.redis.pipelines
    assert len(commands) == 3


async def test_rules_count_for_the_next_publish_through_any_gateway(
    new_gateway: NewGateway, stores: Stores
) -> None:
    gateways = [new_gateway() for _ in range(3)]
    for number, each in enumerate(gateways):
        await each.publish(event(number))
    await put_rules(stores, "orders")
    for number, each in enumerate(gateways, 10):
        assert list(offsets_in(await each.publish(event(number)))) == [0]
    await put_rules(stores)
    for each in gateways:
        await each.publish(event(20))
        assert offsets_in(await each.publish(event(21))) == {}
    assert (await retained(stores))[:3] == ["10", "11", "12"]
    assert "21" not in await retained(stores)


async def test_a_repair_retains_nothing_twice(gateway: Gateway, stores: Stores) -> None:
    """The bindings of one of the channels change while a publish is under way."""
    channel, other = await bound_channel(stores), await bound_channel(stores)
    await put_rules(stores, "orders")
    await gateway.publish(event(0))
    for number in range(1, 6):
        await bind(stores, other, "orders" if number % 2 else "elsewhere")
        await bind(stores, channel, "orders", f"more.{number}")
        published = await gateway.publish(event(number))
        assert list(offsets_in(published)) == [0]
    assert await retained(stores) == [str(number) for number in range(6)] == queued(stores, channel)


async def test_publishes_at_once_are_retained_in_order(gateway: Gateway, stores: Stores) -> None:
    channel = await bound_channel(stores)
    await put_rules(stores, "orders")
    await gateway.publish(event(0))
    publishing = []
    for number in range(1, 60):
        publishing.append(asyncio.create_task(gateway.publish(event(number))))
        if number % 20 == 0:
            publishing.append(asyncio.create_task(gateway.publish(event(1000 + number, "other"))))
            await bind(stores, channel, "orders", f"more.{number}")
    await asyncio.gather(*publishing)
    assert await retained(stores) == [str(number) for number in range(60)]


async def test_a_large_publish_is_retained_in_lots(gateway: Gateway, stores: Stores) -> None:
    await bound_channel(stores)
    await put_rules(stores, "#")
    events = [event(number, f"t{number % 3}", data=b'"%s"' % (b"x" * 2000)) for number in range(900)]
    published = await gateway.publish(*events)
    assert sorted(offsets_in(published)) == list(range(900))
    for topic in range(3):
        assert await retained(stores, f"t{topic}") == [str(number) for number in range(topic, 900, 3)]
    assert await gateway.is_idle()


@pytest.mark.parametrize("topic", ["device.registrations", "device.notifications"])
async def test_topics_of_devices_are_never_retained(gateway: Gateway, stores: Stores, topic: str) -> None:
    await put_rules(stores, "#")
    fields = {"ep": "lamp", "path": "/1"}
    published = await gateway.publish(Event("1", topic, b'{"ep": "lamp", "path": "/1"}', fields=fields))
    assert offsets_in(published) == {}
    assert await retained(stores, topic) == []


async def test_an_event_for_one_channel_names_it_by_its_id(gateway: Gateway, stores: Stores) -> None:
    channel = await bound_channel(stores)
    await put_rules(stores, "orders")
    await gateway.publish(event(1, to=channel))
    found = await stores.streams.find(stores.account_id, "1")
    assert found is not None
    assert found.event.to == channel


async def test_nothing_is_retained_after_the_deadline(gateway: Gateway, stores: Stores) -> None:
    await put_rules(stores, "orders")
    await gateway.publish(event(0))
    late = Deadline(stores.now_ms() - 1)
    with pytest.raises(DeadlinePassed):
        await gateway.publisher.publish(posted(stores.account_id, event(1)), deadline=late)
    assert await retained(stores) == ["0"]


async def test_the_answer_and_its_repetition_name_the_offset(gateway: Gateway, stores: Stores) -> None:
    await put_rules(stores, "orders")
    events = [event(0), event(1, "other")]
    published = await gateway.publish(*events)
    sent = posted(stores.account_id, *events)
    body = response_body(sent, published)
    [offset] = offsets_in(published).values()
    assert orjson.loads(body)["events"] == [
        {"id": "0", "channels": 0, "stream": {"offset": offset}},
        {"id": "1", "channels": 0},
    ]
    assert response_body(sent, unpack_counts(pack_counts(published))) == body
    assert unpack_counts(pack_counts([1, 2])) == [1, 2]


@pytest.mark.parametrize(
    ("topics", "appends"),
    [
        (["kept.a"], 1),
        (["kept.a"] * STREAM_LOT, 1),
        (["kept.a"] * (STREAM_LOT + 1), 2),
        (["kept.a", "other", "kept.a"], 1),
        (["kept.a", "kept.b"], 2),
    ],
)
async def test_events_for_streams_alone(
    gateway: Gateway, stores: Stores, topics: list[str], appends: int
) -> None:
    await put_rules(stores, "kept.#")
    await gateway.publish(event(0, "kept.a"))
    gateway.redis.pipelines.clear()
    published = await gateway.publish(*(event(number, topic) for number, topic in enumerate(topics, 1)))
    [commands] = gateway.redis.pipelines
    # Beside the appends the versions of two routing tables are read.
    assert len(commands) == appends + 2
    assert published == [0] * len(topics)
    assert offsets_in(published).keys() == {n for n, topic in enumerate(topics) if topic != "other"}
    for topic in ("kept.a", "kept.b"):
        expected = [str(number) for number, each in enumerate(topics, 1) if each == topic]
        assert await retained(stores, topic) == ["0"] * (topic == "kept.a") + expected
    assert await gateway.is_idle()


async def test_an_event_for_a_key_without_a_channel_is_retained_as_the_keys(
    gateway: Gateway, stores: Stores
) -> None:
    await put_rules(stores, "orders")
    key, _ = await stores.api_key()
    published = await gateway.publish(event(1), event(2, to=key.id))
    assert list(offsets_in(published)) == [0, 1]
    found = await stores.streams.find(stores.account_id, "2")
    assert found is not None
    assert found.event.to == key.id


async def test_a_full_redis_fails_a_publish_for_a_stream_alone(gateway: Gateway, stores: Stores) -> None:
    await put_rules(stores, "orders")
    await gateway.publish(event(1))
    as_before = gateway.redis.send

    def send(commands: Sequence[Command], on_replies: OnReplies) -> None:
        def refuse(replies: list[Any] | Exception) -> None:
            assert isinstance(replies, list)
            is_append = [command.arguments[0] == "EVALSHA" for command in commands]
            full = OutOfMemoryError("command not allowed")
            on_replies([full if each else reply for each, reply in zip(is_append, replies, strict=True)])

        gateway.redis.send = as_before  # type: ignore[method-assign]
        as_before(commands, refuse)

    gateway.redis.send = send  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await gateway.publish(event(2))
    assert list(offsets_in(await gateway.publish(event(3)))) == [0]
    assert await gateway.is_idle()
