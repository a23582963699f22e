"""Requests that arrive together share one append to a channel: each has its own answer, and order holds."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.model.api_keys import new_id
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.publish.request import Posted
from shared.redis.connection import Command
from shared.store.queues import APPEND_LOT
from tests.harness.waiting import wait_until
from tests.publish.publishing import Gateway, bind, bound_channel, event, posted, queued
from tests.store.stores import Stores

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def channel(gateway: Gateway, stores: Stores) -> str:
    """A channel bound to `orders`, whose bindings it has confirmed."""
    made = await bound_channel(stores)
    await gateway.publish(event(0))
    gateway.redis.pipelines.clear()
    return made


def appends(gateway: Gateway) -> list[Command]:
    """The appends since the last look."""
    found = [
        command
        for commands in gateway.redis.pipelines
        for command in commands
        if command.arguments[0] in ("EVALSHA", "EVAL") and len(command.arguments) > 7
    ]
    gateway.redis.pipelines.clear()
    return found


async def publish_together(
    gateway: Gateway, *requests: Posted, deadlines: Sequence[Deadline | None] = ()
) -> list[list[int] | BaseException]:
    """All arrive in one turn of the event loop."""
    given = [*deadlines, *[None] * len(requests)]
    publishes = (
        gateway.publisher.publish(each, deadline=deadline)
        for each, deadline in zip(requests, given, strict=False)
    )
    return await asyncio.gather(*publishes, return_exceptions=True)


def of(stores: Stores, *events: Event) -> Posted:
    return posted(stores.account_id, *events)


async def test_requests_of_one_turn_share_an_append(gateway: Gateway, stores: Stores, channel: str) -> None:
    results = await publish_together(
        gateway,
        of(stores, event(1)),
        of(stores, event(2), event(3, topic="unwanted"), event(4)),
        of(stores, event(5)),
    )

    assert results == [[1], [1, 0, 1], [1]]
    assert queued(stores, channel) == ["0", "1", "2", "4", "5"]
    assert len(appends(gateway)) == 1


async def test_one_pipeline_shares_only_what_goes_to_one_channel(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    other = await bound_channel(stores, "invoices")
    await gateway.publish(event(0, topic="invoices"))
    gateway.redis.pipelines.clear()

    requests = [of(stores, event(n, topic=("orders", "invoices")[n % 2])) for n in range(1, 9)]
    assert await publish_together(gateway, *requests) == [[1]] * 8

    assert queued(stores, channel) == list("02468")
    assert queued(stores, other) == list("01357")
    assert gateway.count_pipelines() == 1


@pytest.mark.parametrize(
    ("name", "requests", "shared"),
    [
        ("another trace", [replace(posted("a", event(1)), traceparent=TRACE), posted("a", event(2))], 2),
        ("a receipt", [posted("a", event(1)), posted("a", event(2)._replace(receipt=True))], 2),
        ("many", [posted("a", event(n)) for n in range(1, APPEND_LOT + 3)], 2),
        ("long", [posted("a", event(n, data=b'"%s"' % (b"x" * 10_000))) for n in range(1, 6)], 3),
        ("many at once", [posted("a", *map(event, range(n, n + 60))) for n in (1, 61)], 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_has_an_append_of_its_own(
    gateway: Gateway, stores: Stores, channel: str, name: str, requests: list[Posted], shared: int
) -> None:
    """The order of arrival holds for these too."""
    requests = [replace(each, account_id=stores.account_id) for each in requests]

    results = await publish_together(gateway, *requests)

    assert results == [[1] * len(each.events) for each in requests]
    ids = [each.id for request in requests for each in request.events]
    assert queued(stores, channel) == ["0", *ids]
    channels_appends = [each for each in appends(gateway) if f"{{{channel}}}:queue" in each.arguments]
    assert len(channels_appends) == shared


async def test_no_request_overtakes_one_that_needs_an_append_of_its_own(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    """The first and the last could share an append, but for the one between them."""
    late = Deadline(10**14)
    requests = [of(stores, event(n)) for n in range(1, 6)]

    await publish_together(gateway, *requests, deadlines=[None, None, late])

    assert queued(stores, channel) == list("012345")


async def test_a_request_with_a_deadline_that_has_passed_fails_alone(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    passed = Deadline(1)
    requests = [of(stores, event(n)) for n in range(1, 4)]

    first, second, third = await publish_together(gateway, *requests, deadlines=[None, passed])

    assert (first, type(second).__name__, third) == ([1], "DeadlinePassed", [1])
    assert queued(stores, channel) == ["0", "1", "3"]


async def test_each_request_is_repaired_when_the_channel_refuses_what_they_share(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    """Another gateway has changed the bindings: only some of the events are wanted now."""
    await bind(stores, channel, "invoices")

    results = await publish_together(
        gateway, *(of(stores, event(n, topic=("orders", "invoices")[n % 2])) for n in range(1, 7))
    )

    assert results == [[1], [0], [1], [0], [1], [0]]
    assert queued(stores, channel) == ["0", "1", "3", "5"]
    assert await gateway.is_idle()


async def test_each_request_fails_when_redis_does(gateway: Gateway, stores: Stores, channel: str) -> None:
    failing = gateway.redis.send

    def send(commands: Sequence[Command], on_replies: object) -> None:
        gateway.redis.send = failing  # type: ignore[method-assign]
        on_replies(ConnectionResetError())  # type: ignore[operator]

    gateway.redis.send = send  # type: ignore[method-assign]
    results = await publish_together(gateway, *(of(stores, event(n)) for n in range(1, 4)))

    assert [isinstance(each, StoreUnavailable) for each in results] == [True] * 3
    assert await gateway.is_idle()
    assert await gateway.publish(event(9)) == [1]


async def test_a_channel_that_is_gone_takes_nothing_of_any_request(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    stores.direct.delete(f"{{{channel}}}:channel", f"{{{channel}}}:queue")

    results = await publish_together(gateway, of(stores, event(1)), of(stores, event(2)))

    assert results == [[0], [0]]


async def test_requests_that_arrive_while_redis_works_share_the_next_append(
    gateway: Gateway, stores: Stores, channel: str
) -> None:
    first = asyncio.create_task(gateway.publish(event(1)))
    await wait_until(lambda: bool(gateway.redis.pipelines))
    later = await publish_together(gateway, of(stores, event(2)), of(stores, event(3)))

    assert (await first, later) == ([1], [[1], [1]])
    assert queued(stores, channel) == list("0123")
    assert len(appends(gateway)) == 2
    assert await gateway.publisher.publish(of(stores, event(4))) == [1]


async def test_accounts_do_not_share(gateway: Gateway, stores: Stores, channel: str) -> None:
    other = new_id()
    await gateway.publish(event(0), account_id=other)

    results = await publish_together(gateway, of(stores, event(1)), posted(other, event(2)))

    assert results == [[1], [0]]
    assert queued(stores, channel) == ["0", "1"]
