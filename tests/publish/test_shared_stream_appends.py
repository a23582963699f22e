"""Requests that arrive together share one append to a stream: each has its own answer, and order holds."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.model.api_keys import new_id
from shared.model.errors import StoreUnavailable
from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.model.streams import Published
from shared.publish.request import Posted
from shared.redis.connection import Command
from shared.store.streams import STREAM_LOT
from tests.harness.waiting import wait_until
from tests.publish.publishing import Gateway, event, posted
from tests.publish.test_retained import put_rules, retained
from tests.publish.test_shared_appends import appends, publish_together
from tests.store.stores import Stores

LONG = b'"%s"' % (b"x" * 30_000)


@pytest.fixture
async def warm(gateway: Gateway, stores: Stores) -> Gateway:
    """A gateway that knows its account's rules: `orders` and `kept.#` have a stream."""
    await put_rules(stores, "orders", "kept.#")
    await gateway.publish(event(0))
    gateway.redis.pipelines.clear()
    return gateway


def of(stores: Stores, *events: Event) -> Posted:
    return posted(stores.account_id, *events)


async def ids_of(stores: Stores, results: Sequence[list[int] | BaseException]) -> list[list[str]]:
    """What is retained where each answer says, in the order of the request."""
    found = []
    for result in results:
        assert isinstance(result, Published)
        ids = []
        for _, offset in sorted(result.offsets.items()):
            for topic in ("orders", "kept.a", "kept.b"):
                for each in await stores.streams.read(
                    stores.account_id, topic, after="0-0", count=100, size_bytes=10**6
                ):
                    ids += [each.event.id] if each.offset == offset else []
        found.append(ids)
    return found


async def test_requests_of_one_turn_share_an_append(warm: Gateway, stores: Stores) -> None:
    results = await publish_together(
        warm,
        of(stores, event(1), event(2)),
        of(stores, event(3, topic="kept.a")),
        of(stores, event(4)),
        of(stores, event(5, topic="kept.b")),
        of(stores, event(6, topic="kept.a"), event(7, topic="kept.a")),
    )

    assert await ids_of(stores, results) == [["1", "2"], ["3"], ["4"], ["5"], ["6", "7"]]
    assert await retained(stores) == list("0124")
    assert await retained(stores, "kept.a") == list("367")
    # One for each topic.
    assert len(appends(warm)) == 3


@pytest.mark.parametrize(
    ("name", "requests", "shared"),
    [
        ("many", [posted("a", event(n)) for n in range(1, STREAM_LOT + 3)], 2),
        ("long", [posted("a", event(n, data=b'"%s"' % (b"x" * 10_000))) for n in range(1, 6)], 3),
        (
            "very long first",
            [posted("a", event(1, data=b'"%s"' % (b"x" * 30_000))), posted("a", event(2))],
            2,
        ),
        ("many at once", [posted("a", *map(event, range(n, n + 40))) for n in (1, 41)], 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_has_an_append_of_its_own(
    warm: Gateway, stores: Stores, name: str, requests: list[Posted], shared: int
) -> None:
    requests = [replace(each, account_id=stores.account_id) for each in requests]

    results = await publish_together(warm, *requests)

    ids = [[each.id for each in request.events] for request in requests]
    assert await retained(stores) == ["0", *(each for request in ids for each in request)]
    assert [list(each.offsets) for each in results if isinstance(each, Published)] == [
        list(range(len(request))) for request in ids
    ]
    assert len(appends(warm)) == shared


async def test_no_request_overtakes_one_that_needs_an_append_of_its_own(
    warm: Gateway, stores: Stores
) -> None:
    late = Deadline(10**14)
    requests = [of(stores, event(n)) for n in range(1, 6)]

    await publish_together(warm, *requests, deadlines=[None, None, late])

    assert await retained(stores) == list("012345")
    assert len(appends(warm)) == 3


async def test_another_rule_has_an_append_of_its_own(warm: Gateway, stores: Stores) -> None:
    """A gateway that has read new rules between two requests of one turn."""
    replies: list[object] = []
    stream = warm.stores.streams
    [keep] = {rule.keep for rule in (await stream.rules(stores.account_id)).rules}
    warm.redis.pipelines.clear()
    for number, most in enumerate((10, 10, 2), 1):
        each, kept = event(number), keep._replace(most=most)
        stream.append_then(replies.append, stores.account_id, "orders", [each], keep=kept, size_bytes=2)
    await wait_until(lambda: len(replies) == 3)
    assert await retained(stores) == ["2", "3"]
    assert len(appends(warm)) == 2


async def test_each_request_fails_when_redis_does(warm: Gateway, stores: Stores) -> None:
    failing = warm.redis.send

    def send(commands: Sequence[Command], on_replies: object) -> None:
        warm.redis.send = failing  # type: ignore[method-assign]
        on_replies(ConnectionResetError())  # type: ignore[operator]

    warm.redis.send = send  # type: ignore[method-assign]
    results = await publish_together(warm, *(of(stores, event(n)) for n in range(1, 4)))

    assert [isinstance(each, StoreUnavailable) for each in results] == [True] * 3
    assert await warm.is_idle()
    assert isinstance(await warm.publish(event(9)), Published)


async def test_accounts_do_not_share(warm: Gateway, stores: Stores) -> None:
    other = new_id()
    await warm.publish(event(0), account_id=other)
    warm.redis.pipelines.clear()

    results = await publish_together(warm, of(stores, event(1)), posted(other, event(2)))

    assert [type(each) for each in results] == [Published, list]
    assert await retained(stores) == ["0", "1"]
